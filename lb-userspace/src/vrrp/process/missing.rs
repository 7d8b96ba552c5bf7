//! VIPs of an Active router that are not on its interface: somebody has removed them, or the kernel has refused them.

use std::net::IpAddr;

use tracing::warn;

use super::driver::Driver;
use super::vips;
use crate::vrrp::protocol::State;
use crate::vrrp::router::Input;

/// Whoever removes VIPs again and again is not answered more often, and a kernel that refuses them not asked.
/// Unit: microseconds.
const AGAIN_AFTER_US: u64 = 500_000;

/// What is missing of a router, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct Missing {
    is_any: bool,
    /// When they were put back, or tried to be.
    tried_us: Option<u64>,
    /// Why the kernel does not take them, so that it is logged once.
    trouble: Option<String>,
    /// VIPs that were put back.
    pub(super) restored: u64,
}

impl Missing {
    /// When it is to be looked at again, if anything is missing.
    pub(super) fn due_us(&self) -> Option<u64> {
        let tried_us = self.tried_us.unwrap_or(0);
        self.is_any.then_some(tried_us + AGAIN_AFTER_US)
    }

    fn is_due(&self, now_us: u64) -> bool {
        self.due_us().is_some_and(|due_us| due_us <= now_us)
    }
}

impl Driver {
    /// Whether something is missing that was not put back at once.
    pub(super) fn is_restoring_due(&self, now_us: u64) -> bool {
        self.runs.iter().any(|run| run.missing.is_due(now_us))
    }

    /// Puts back what should be on interfaces and is not. To be called when the interfaces' addresses were read.
    pub(super) fn restore_vips(&mut self, now_us: u64) {
        for index in 0..self.runs.len() {
            let absent = self.absent_vips(index);
            let Some(run) = self.runs.get_mut(index) else {
                continue;
            };
            run.missing.is_any = !absent.is_empty();
            if run.missing.is_due(now_us) {
                run.missing.tried_us = Some(now_us);
                self.restore(index, now_us, &absent);
            }
        }
    }

    /// The VIPs of an Active router that are not on its interface, or its device.
    fn absent_vips(&mut self, index: usize) -> Vec<IpAddr> {
        let Some(run) = self.runs.get(index) else {
            return Vec::new();
        };
        if run.machine.state() != State::Active {
            return Vec::new();
        }
        let mut vips = run.machine.config().listed_vips();
        let read;
        let present = match &run.device {
            Some(device) => match self.netlink.addresses(device.ifindex) {
                Ok(addresses) => {
                    read = addresses;
                    &read
                }
                Err(_) => return Vec::new(),
            },
            None => match self.ports.get(&run.group.interface) {
                Some(port) => &port.addresses,
                None => return Vec::new(),
            },
        };
        vips.retain(|vip| present.iter().all(|one| one.local.address != *vip));
        vips
    }

    fn restore(&mut self, index: usize, now_us: u64, absent: &[IpAddr]) {
        let Some(place) = self.place(index) else {
            return;
        };
        let memory = &mut self.memory;
        let save = |record: &_| memory.save(record);
        let outcome = vips::add(&mut self.netlink, &mut self.record, &place, absent, save);
        self.note_added(index, now_us, &outcome);
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        // Those that were added since the addresses were read are there.
        if outcome.added.is_empty() {
            return;
        }
        run.missing.restored += outcome.added.len() as u64;
        let (name, interface) = (run.name(), &place.interface);
        let vips: Vec<String> = outcome.added.iter().map(ToString::to_string).collect();
        let vips = vips.join(", ");
        warn!("{name}: {vips} had gone from {interface}, though this node is Active: put back");
        self.is_record_dirty = true;
        self.is_status_dirty = true;
        // The link may have forgotten where they are.
        self.feed(index, now_us, Input::LinkUp);
    }

    /// What the kernel does not take is tried again, and logged once.
    pub(super) fn note_added(&mut self, index: usize, now_us: u64, outcome: &vips::Outcome) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        run.missing.is_any = outcome.trouble.is_some();
        if run.missing.is_any {
            run.missing.tried_us = Some(now_us);
        }
        if let Some(trouble) = &outcome.trouble
            && run.missing.trouble.as_ref() != Some(trouble)
        {
            warn!("{}: {trouble}", run.name());
        }
        run.missing.trouble.clone_from(&outcome.trouble);
    }
}
