//! Taking a datapath off that goes on without its daemon.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, anyhow};

use super::own_vips::OwnVips;
use super::state_file::StateFile;
use super::vips::{Removal, removals};
use crate::control::{Socket, SocketError};
use crate::loader;
use crate::netlink::Netlink;
use crate::netlink::view::View;
use crate::pins::Pins;
use crate::vrrp::process;
use crate::vrrp::supervisor::vrrp_socket;

/// What was there to take off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// A datapath.
    Datapath {
        /// VIPs that were removed.
        vip_count: usize,
    },
    /// Nothing.
    Nothing,
}

impl std::fmt::Display for Detached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Datapath { vip_count: 1 } => f.write_str("datapath taken off, 1 VIP removed"),
            Self::Datapath { vip_count } => {
                write!(f, "datapath taken off, {vip_count} VIPs removed")
            }
            Self::Nothing => f.write_str("there is no datapath to take off"),
        }
    }
}

/// Takes off what the daemon behind `socket`, which no longer runs, has left: its VIPs first, so that
/// the host answers none of their packets, then the program and the maps. Must be called in the network
/// namespace of the datapath.
///
/// # Errors
/// A daemon runs; or what could not be removed, which the next call tries again.
pub async fn detach(socket: &Path) -> anyhow::Result<Detached> {
    loader::check_privilege()?;
    // With its lock held, no daemon starts meanwhile.
    let _socket = Socket::bind(socket).map_err(|error| match error {
        SocketError::InUse { path, owner } => anyhow!(
            "lbd{owner} is running on {}: `lbctl datapath detach` has it take the datapath off and end",
            path.display()
        ),
        other => other.into(),
    })?;
    let pins = Pins::of(socket);
    pins.check_namespace()?;
    let state_file = StateFile::beside(socket);
    let moved_count = process::take_off(&vrrp_socket(socket))?;
    let vip_count = moved_count + remove_vips(state_file.clone()).await?;
    let was_there = pins.exists();
    pins.remove()?;
    state_file.remove()?;
    StateFile::of_services(socket).remove()?;
    StateFile::of_hash_key(socket).remove()?;
    Ok(if was_there || vip_count > 0 {
        Detached::Datapath { vip_count }
    } else {
        Detached::Nothing
    })
}

async fn remove_vips(state_file: StateFile) -> anyhow::Result<usize> {
    let mut own = OwnVips::load(state_file)?;
    if own.is_empty() {
        return Ok(0);
    }
    let netlink = Netlink::open()?;
    let mut view = View::default();
    netlink.read_links(&mut view).await?;
    let mut removed_count = 0;
    let nothing = BTreeSet::new();
    for removal in removals(&own, &nothing, &nothing, &[], &view) {
        let vip = match removal {
            Removal::WentWithLink(vip) | Removal::Forget(vip) | Removal::HandOver(vip) => vip,
            Removal::Remove { vip, ifindex } => {
                netlink.remove_vip(ifindex, vip).await?;
                removed_count += 1;
                vip
            }
        };
        own.forget(vip);
    }
    own.save().context("cannot save the list of VIPs")?;
    Ok(removed_count)
}
