//! The interfaces that the datapath is attached to.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use tracing::{info, warn};

use super::snapshot::InterfaceState;
use crate::loader::attach::{AttachError, Attachment, attach};
use crate::model::Interface;
use crate::netlink::view::View;

/// What to do about an interface that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnMissing {
    /// Refuse: the operator has just asked for it.
    Fail,
    /// Go on without it: it was there and may come back.
    Wait,
}

struct Attached {
    interface: Interface,
    attachment: Attachment,
}

/// The attachments by interface name.
#[derive(Default)]
pub(super) struct Interfaces(BTreeMap<String, Attached>);

impl Interfaces {
    /// Attaches `program` to each of `wanted` that it is not yet attached to; an interface that was
    /// deleted and made again is a new one.
    pub(super) fn attach(
        &mut self,
        program: BorrowedFd<'_>,
        wanted: &[Interface],
        view: &View,
        on_missing: OnMissing,
    ) -> Result<(), AttachError> {
        self.forget_vanished(view);
        for interface in wanted {
            if self.0.contains_key(&interface.name) {
                continue;
            }
            match view.ifindex(&interface.name) {
                Some(ifindex) => {
                    let attachment = attach(program, &interface.name, ifindex, interface.xdp)?;
                    let attached = Attached {
                        interface: interface.clone(),
                        attachment,
                    };
                    self.0.insert(interface.name.clone(), attached);
                }
                None if on_missing == OnMissing::Fail => return Err(missing(interface, view)),
                None => {}
            }
        }
        Ok(())
    }

    /// The kernel has detached the program from what is gone.
    fn forget_vanished(&mut self, view: &View) {
        self.0.retain(|name, attached| {
            let is_there = view.ifindex(name) == Some(attached.attachment.ifindex);
            if !is_there {
                warn!(interface = name, "the interface has gone; waiting for it");
            }
            is_there
        });
    }

    /// Detaches the program from everything that is not in `wanted`.
    pub(super) fn release_all_but(&mut self, wanted: &[Interface]) {
        self.0.retain(|name, _| {
            let stays = wanted.iter().any(|interface| interface.name == *name);
            if !stays {
                info!(interface = name, "XDP detached");
            }
            stays
        });
    }

    /// Names and indices in the order of `wanted`, for what is attached.
    pub(super) fn in_order(&self, wanted: &[Interface]) -> Vec<(String, u32)> {
        wanted
            .iter()
            .filter_map(|interface| self.0.get(&interface.name))
            .map(|attached| {
                let name = attached.interface.name.clone();
                (name, attached.attachment.ifindex)
            })
            .collect()
    }

    /// What `wanted` asks for and a running attachment does not give.
    pub(super) fn differences(&self, wanted: &[Interface]) -> Vec<String> {
        wanted
            .iter()
            .filter(|interface| {
                let attached = self.0.get(&interface.name);
                attached.is_some_and(|attached| attached.interface.xdp != interface.xdp)
            })
            .map(|interface| {
                format!(
                    "interface {}: `xdp` takes effect at the next start",
                    interface.name
                )
            })
            .collect()
    }

    /// For the snapshot.
    pub(super) fn states(&self) -> Vec<InterfaceState> {
        let state = |attached: &Attached| InterfaceState {
            interface: attached.interface.clone(),
            ifindex: attached.attachment.ifindex,
            attached: attached.attachment.mode.label(),
        };
        self.0.values().map(state).collect()
    }
}

fn missing(interface: &Interface, view: &View) -> AttachError {
    AttachError::NoInterface {
        interface: interface.name.clone(),
        existing: view.links.values().map(|link| link.name.clone()).collect(),
    }
}
