//! Removing what is there because of us: VIPs, devices and changed settings.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tracing::warn;

use super::memory::{Memory, Record};
use super::{clock, vips, virtual_mac};
use crate::netlink::blocking::BlockingNetlink;
use crate::vrrp::protocol::ToVrrp;

/// How long a process may take to hand over and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// The kind of the devices that we make.
const MACVLAN: &str = "macvlan";

/// Removes everything.
pub(super) fn remove_all(netlink: &mut BlockingNetlink, record: &mut Record) {
    vips::remove_others(netlink, record, &BTreeSet::new());
    remove_devices(netlink, record, &BTreeSet::new());
    restore_settings(record);
}

/// Removes the devices that we have made, but for those; whether there were any.
pub(super) fn remove_devices(
    netlink: &mut BlockingNetlink,
    record: &mut Record,
    kept: &BTreeSet<String>,
) -> bool {
    let mut is_changed = false;
    for (name, ifindex) in record.macvlans.clone() {
        if kept.contains(&name) {
            continue;
        }
        // The name and the index may have gone to somebody else meanwhile.
        let found = netlink.port_by_index(ifindex);
        let removed = found.and_then(|found| match found {
            Some(port) if port.link.name == name && port.kind.as_deref() == Some(MACVLAN) => {
                netlink.remove_link(ifindex)
            }
            _ => Ok(()),
        });
        match removed {
            Ok(()) => drop(record.macvlans.remove(&name)),
            Err(error) => warn!("cannot remove {name}: {error}"),
        }
        is_changed = true;
    }
    is_changed
}

/// Sets back what we have changed; whether there was anything.
pub(super) fn restore_settings(record: &mut Record) -> bool {
    let settings = std::mem::take(&mut record.settings);
    for (setting, former) in &settings {
        match virtual_mac::write(setting, former) {
            // With its interface, the setting has gone.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!("cannot set {setting} back to {former}: {error}");
            }
            _ => {}
        }
    }
    !settings.is_empty()
}

/// Ends the `lbd-vrrp` behind `socket`, which is its own, if there is one, and removes what a dead one has left.
/// Must be called in its network namespace. Returns how many VIPs a dead one has left.
///
/// # Errors
/// If it does not end, or something cannot be removed.
pub fn take_off(socket: &Path) -> anyhow::Result<usize> {
    if let Ok(stream) = UnixStream::connect(socket) {
        end(stream).with_context(|| format!("lbd-vrrp at {} does not end", socket.display()))?;
    }
    let mut memory = Memory::open(socket);
    let mut record = memory
        .legacy(&clock::boot_id(), clock::boottime_us())
        .record;
    let vip_count = record.vips.len();
    let mut netlink = BlockingNetlink::open().context("cannot open a netlink socket")?;
    remove_all(&mut netlink, &mut record);
    if !record.vips.is_empty() || !record.macvlans.is_empty() {
        memory.save(&record);
        let vips: Vec<String> = record.vips.keys().map(ToString::to_string).collect();
        bail!("VIPs of lbd-vrrp are left: {}", vips.join(", "));
    }
    memory.remove();
    Ok(vip_count)
}

/// Tells a process to end, and waits until it has: it closes the connection.
fn end(mut stream: UnixStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(STOP_TIMEOUT))?;
    let mut line = serde_json::to_vec(&ToVrrp::Stop)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_was_left_nothing_is_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock.vrrp");
        assert_eq!(take_off(&socket).unwrap(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
