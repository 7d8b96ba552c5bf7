//! The devices of virtual MACs: made when the group is, up while its router is Active.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use tracing::{debug, warn};

use super::driver::Driver;
use super::run::Device;
use super::{leftovers, virtual_mac};
use crate::netlink::blocking::LinkSwitch;

impl Driver {
    /// Finds or makes the devices of the routers that want one.
    pub(super) fn find_devices(&mut self) {
        let mut wanted = BTreeSet::new();
        for index in 0..self.runs.len() {
            let Some(run) = self.runs.get(index).filter(|run| run.group.virtual_mac) else {
                continue;
            };
            let (family, vrid) = (run.family, run.group.vrid);
            let Some(port) = self.ports.get(&run.group.interface) else {
                continue;
            };
            let (lower, interface) = (port.port.ifindex, run.group.interface.clone());
            let name = virtual_mac::device(family, vrid, lower);
            let device = match self.netlink.port(&name) {
                Ok(Some(found)) => Some(found.ifindex),
                Ok(None) => {
                    let made =
                        self.netlink
                            .add_macvlan(&name, lower, virtual_mac::address(family, vrid));
                    self.note_device(&name, &interface, made)
                }
                Err(error) => {
                    warn!("cannot look at {name}: {error}");
                    None
                }
            };
            wanted.insert(name.clone());
            if let Some(run) = self.runs.get_mut(index) {
                run.device = device.map(|ifindex| Device { name, ifindex });
            }
        }
        self.is_record_dirty |=
            leftovers::remove_devices(&mut self.netlink, &mut self.record, &wanted);
        if wanted.is_empty() {
            self.is_record_dirty |= leftovers::restore_settings(&mut self.record);
        }
    }

    fn note_device(
        &mut self,
        name: &str,
        interface: &str,
        made: std::io::Result<()>,
    ) -> Option<u32> {
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                warn!("cannot make {name} on {interface}: {error}");
                return None;
            }
            _ => {}
        }
        let ifindex = self.netlink.port(name).ok().flatten()?.ifindex;
        self.record.macvlans.insert(name.to_owned(), ifindex);
        for (setting, value) in virtual_mac::device_settings(name) {
            if let Err(error) = virtual_mac::write(&setting, value) {
                debug!("cannot set {setting}: {error}");
            }
        }
        for (setting, value) in virtual_mac::lower_settings(interface) {
            self.change_setting(&setting, value);
        }
        self.is_record_dirty = true;
        Some(ifindex)
    }

    /// Changes a setting of an interface that is not ours; what it was is written down.
    fn change_setting(&mut self, setting: &str, value: &str) {
        let former = match virtual_mac::read(setting) {
            Ok(former) if former == value => return,
            Ok(former) => former,
            Err(error) => {
                warn!("cannot read {setting}: {error}");
                return;
            }
        };
        let settings = &mut self.record.settings;
        settings.entry(setting.to_owned()).or_insert(former);
        self.memory.save(&self.record);
        if let Err(error) = virtual_mac::write(setting, value) {
            warn!("cannot set {setting}: {error}");
        }
    }

    /// The router becomes Active: its device takes frames in.
    pub(super) fn raise_device(&mut self, index: usize) {
        self.switch_device(index, LinkSwitch::On);
    }

    /// Another node has the virtual router's Ethernet address.
    pub(super) fn lower_device(&mut self, index: usize) {
        self.switch_device(index, LinkSwitch::Off);
    }

    fn switch_device(&mut self, index: usize, to: LinkSwitch) {
        let device = self.runs.get(index).and_then(|run| run.device.clone());
        let Some(device) = device else { return };
        if let Err(error) = self.netlink.set_link(device.ifindex, to) {
            warn!("cannot switch {}: {error}", device.name);
        }
    }
}
