//! The interfaces that the datapath is attached to.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use tracing::{error, info, warn};

use super::snapshot::InterfaceState;
use crate::loader::attach::{AttachError, AttachedMode, Attachment, attach};
use crate::model::{Interface, XdpMode};
use crate::netlink::view::View;
use crate::pins::{FoundLink, PinError, Pins};

struct Attached {
    interface: Interface,
    /// Its name now, which may be another than the configured one.
    name: String,
    attachment: Attachment,
}

/// An interface that the program is not attached to, and why.
pub(super) struct Unattached {
    /// The configured name.
    pub(super) interface: String,
    /// The reason.
    pub(super) error: AttachError,
}

/// The attachments by configured name, and what is missing.
#[derive(Default)]
pub(super) struct Interfaces {
    attached: BTreeMap<String, Attached>,
    /// Reasons by configured name.
    unattached: BTreeMap<String, String>,
    /// What an earlier daemon has attached, and no configured interface has claimed.
    found: Vec<FoundLink>,
}

/// What is attached, and where that is noted.
#[derive(Clone, Copy)]
pub(super) struct Program<'p> {
    /// The program.
    pub(super) fd: BorrowedFd<'p>,
    /// Where its links are pinned.
    pub(super) pins: &'p Pins,
}

impl Interfaces {
    /// Begins with what an earlier daemon has attached; the program of this one is there by now.
    pub(super) fn adopting(found: Vec<FoundLink>) -> Self {
        Self {
            found,
            ..Self::default()
        }
    }

    /// Attaches `program` to each of `wanted` that it is not yet attached to; an interface that was
    /// deleted and made again is a new one. What fails does not keep the others from being attached.
    pub(super) fn attach(
        &mut self,
        program: Program<'_>,
        wanted: &[Interface],
        view: &View,
    ) -> Vec<Unattached> {
        self.forget_vanished(view);
        let mut failures = Vec::new();
        for interface in wanted {
            if self.attached.contains_key(&interface.name) {
                continue;
            }
            match self.attach_one(program, interface, view) {
                Ok(attached) => drop(self.attached.insert(interface.name.clone(), attached)),
                Err(error) => failures.push(Unattached {
                    interface: interface.name.clone(),
                    error,
                }),
            }
        }
        failures
    }

    /// Goes on without what could not be attached; each reason is logged when it is new.
    pub(super) fn go_on_without(&mut self, failures: Vec<Unattached>) {
        let before = std::mem::take(&mut self.unattached);
        for Unattached { interface, error } in failures {
            let reason = error.to_string();
            if before.get(&interface) != Some(&reason) {
                error!(interface, "not attached, trying again: {reason}");
            }
            self.unattached.insert(interface, reason);
        }
    }

    /// The kernel has detached the program from what is gone. Under another name it is still there.
    fn forget_vanished(&mut self, view: &View) {
        self.attached.retain(|configured, attached| {
            let Some(link) = view.links.get(&attached.attachment.ifindex) else {
                warn!(
                    interface = configured,
                    "the interface has gone; waiting for it"
                );
                report(configured, attached.attachment.forget());
                return false;
            };
            if link.name != attached.name {
                warn!(
                    interface = configured,
                    "the interface was renamed to {}: XDP stays attached; lbd does not find it \
                     under its configured name at the next start",
                    link.name
                );
                attached.name.clone_from(&link.name);
            }
            true
        });
    }

    /// Detaches the program from everything that is not in `wanted`.
    pub(super) fn release_all_but(&mut self, wanted: &[Interface]) {
        self.attached.retain(|name, attached| {
            let stays = wanted.iter().any(|interface| interface.name == *name);
            if !stays {
                detach(name, || attached.attachment.detach());
            }
            stays
        });
        for link in self.found.drain(..) {
            detach(&link.interface, || link.pin.detach());
        }
    }

    /// Names and indices in the order of `wanted`, for what is attached.
    pub(super) fn in_order(&self, wanted: &[Interface]) -> Vec<(String, u32)> {
        wanted
            .iter()
            .filter_map(|interface| self.attached.get(&interface.name))
            .map(|attached| (attached.name.clone(), attached.attachment.ifindex))
            .collect()
    }

    /// What `wanted` asks for and a running attachment does not give.
    pub(super) fn differences(&self, wanted: &[Interface]) -> Vec<String> {
        wanted
            .iter()
            .filter(|interface| {
                let attached = self.attached.get(&interface.name);
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

    /// For the snapshot: each of `wanted`, attached or not.
    pub(super) fn states(&self, wanted: &[Interface]) -> Vec<InterfaceState> {
        let state = |interface: &Interface| {
            let attached = self.attached.get(&interface.name);
            InterfaceState {
                interface: interface.clone(),
                ifindex: attached.map(|attached| attached.attachment.ifindex),
                attached: attached.map(|attached| attached.attachment.mode.label()),
                reason: self.unattached.get(&interface.name).cloned(),
            }
        };
        wanted.iter().map(state).collect()
    }

    fn attach_one(
        &mut self,
        program: Program<'_>,
        interface: &Interface,
        view: &View,
    ) -> Result<Attached, AttachError> {
        let Some(ifindex) = view.ifindex(&interface.name) else {
            return Err(AttachError::NoInterface {
                interface: interface.name.clone(),
                existing: view.links.values().map(|link| link.name.clone()).collect(),
            });
        };
        let attachment = match self.claim(interface, ifindex) {
            Some(attachment) => attachment,
            None => attach(
                program.fd,
                program.pins,
                &interface.name,
                ifindex,
                interface.xdp,
            )?,
        };
        Ok(Attached {
            interface: interface.clone(),
            name: interface.name.clone(),
            attachment,
        })
    }

    /// The attachment to this interface that was found, if it is as wanted. The kernel attaches no
    /// second one in another mode: then the one that was found goes, and for a moment nobody steers
    /// packets.
    fn claim(&mut self, interface: &Interface, ifindex: u32) -> Option<Attachment> {
        let position = self.found.iter().position(|link| link.ifindex == ifindex)?;
        let link = self.found.swap_remove(position);
        let is_as_wanted = match interface.xdp {
            XdpMode::Auto => true,
            XdpMode::Native => link.mode == AttachedMode::Native,
            XdpMode::Generic => link.mode == AttachedMode::Generic,
        };
        if is_as_wanted {
            return Some(Attachment::adopted(link));
        }
        warn!(
            interface = interface.name,
            "attached in {} mode, and another is wanted: packets of this moment are the host's",
            link.mode.label()
        );
        detach(&interface.name, || link.pin.detach());
        None
    }
}

fn detach(interface: &str, work: impl FnOnce() -> Result<(), PinError>) {
    let detached = work();
    if detached.is_ok() {
        info!(interface, "XDP detached");
    }
    report(interface, detached);
}

fn report(interface: &str, outcome: Result<(), PinError>) {
    if let Err(error) = outcome {
        error!(interface, "{error}");
    }
}
