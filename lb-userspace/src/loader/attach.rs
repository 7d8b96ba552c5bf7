//! Attaching the program to an interface through a BPF link.
//!
//! The system call is made here and not through aya, which falls back to a netlink attachment
//! without a word when the kernel answers `EINVAL`: such an attachment outlives the daemon and
//! cannot be replaced atomically.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tracing::{info, warn};

use crate::model::XdpMode;
use crate::pins::{FoundLink, PinError, PinnedLink, Pins};

/// `BPF_LINK_CREATE` (`enum bpf_cmd`).
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_XDP` (`enum bpf_attach_type`).
const BPF_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` (`include/uapi/linux/if_link.h`).
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the kernel's receive path, after the skb was built.
    Generic,
}

impl AttachedMode {
    /// As in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The mode of this label.
    pub(crate) fn from_label(label: &str) -> Option<Self> {
        [Self::Native, Self::Generic]
            .into_iter()
            .find(|mode| mode.label() == label)
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
        }
    }
}

/// Why the program cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("no interface {interface}; there is {}", .existing.join(", "))]
    NoInterface {
        /// The name that was asked for.
        interface: String,
        /// Those that exist.
        existing: Vec<String>,
    },
    /// Somebody else's program is there.
    #[error(
        "{interface} already has an XDP program: is another lbd running? `ip link show {interface}` \
         names the program"
    )]
    Busy {
        /// The interface.
        interface: String,
    },
    /// The process may not.
    #[error("no permission to attach XDP to {interface}: lbd needs CAP_NET_ADMIN and CAP_BPF")]
    Denied {
        /// The interface.
        interface: String,
    },
    /// The driver cannot, and native mode was asked for.
    #[error(
        "the driver of {interface} refuses native XDP ({refusal}); `xdp = \"auto\"` falls back to \
         generic mode"
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// What the kernel said.
        refusal: io::Error,
    },
    /// Anything else.
    #[error("cannot attach XDP to {interface} in {} mode", .mode.label())]
    Failed {
        /// The interface.
        interface: String,
        /// The mode that was tried last.
        mode: AttachedMode,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The link cannot be pinned.
    #[error(transparent)]
    Unpinned(#[from] PinError),
}

/// The program on an interface. It outlives this value, and the process, until it is detached.
#[derive(Debug)]
pub struct Attachment {
    /// The interface's index when it was attached.
    pub ifindex: u32,
    /// How it is attached.
    pub mode: AttachedMode,
    link: PinnedLink,
}

impl Attachment {
    /// What an earlier daemon has attached.
    pub(crate) fn adopted(found: FoundLink) -> Self {
        Self {
            ifindex: found.ifindex,
            mode: found.mode,
            link: found.pin,
        }
    }

    /// Takes the program off the interface.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub(crate) fn detach(&self) -> Result<(), PinError> {
        self.link.detach()
    }

    /// Removes what is left of the attachment to an interface that has gone.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub(crate) fn forget(&self) -> Result<(), PinError> {
        self.link.unpin()
    }
}

/// Attaches `program` to `interface`, and pins the link.
///
/// # Errors
/// [`AttachError`]; nothing is attached then.
pub fn attach(
    program: BorrowedFd<'_>,
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    wanted: XdpMode,
) -> Result<Attachment, AttachError> {
    let first = match wanted {
        XdpMode::Auto | XdpMode::Native => AttachedMode::Native,
        XdpMode::Generic => AttachedMode::Generic,
    };
    let refusal = match create_link(program, ifindex, first) {
        Ok(link) => {
            if first == AttachedMode::Generic {
                warn_of_cost(interface, "as configured");
            }
            return attached(pins, interface, ifindex, first, link);
        }
        Err(error) => error,
    };
    match explain(interface, wanted, first, refusal) {
        Refusal::Final(error) => Err(error),
        Refusal::TryGeneric(reason) => {
            let mode = AttachedMode::Generic;
            let link = create_link(program, ifindex, mode).map_err(|error| {
                match explain(interface, XdpMode::Generic, mode, error) {
                    Refusal::Final(error) => error,
                    Refusal::TryGeneric(source) => failed(interface, mode, source),
                }
            })?;
            let why = format!("because the driver refuses native mode ({reason})");
            warn_of_cost(interface, &why);
            attached(pins, interface, ifindex, mode, link)
        }
    }
}

fn warn_of_cost(interface: &str, why: &str) {
    warn!(
        interface,
        "generic XDP, {why}. It works, at a price: each packet is first made into an skb, which \
         costs several times the CPU of native mode, and packets that GRO has merged must be copied: \
         turn it off (`ethtool -K {interface} gro off`)"
    );
}

/// Without its pin the link would go with this process: then it goes at once.
fn attached(
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    mode: AttachedMode,
    link: OwnedFd,
) -> Result<Attachment, AttachError> {
    let link = pins.pin_link(link, interface, mode)?;
    info!(interface, ifindex, mode = mode.label(), "XDP attached");
    Ok(Attachment {
        ifindex,
        mode,
        link,
    })
}

enum Refusal {
    Final(AttachError),
    TryGeneric(io::Error),
}

/// What a failure to attach means. Drivers refuse native mode with many errors (`EOPNOTSUPP`,
/// `EINVAL`, `ERANGE` for the MTU, `ENOMEM` for missing queues): all are tried in generic mode but
/// those that would come back there.
fn explain(interface: &str, wanted: XdpMode, mode: AttachedMode, error: io::Error) -> Refusal {
    let interface = interface.to_owned();
    Refusal::Final(match (error.raw_os_error(), wanted) {
        // EEXIST: a program in the other mode.
        (Some(libc::EBUSY | libc::EEXIST), _) => AttachError::Busy { interface },
        (Some(libc::EPERM | libc::EACCES), _) => AttachError::Denied { interface },
        (Some(libc::ENODEV), _) | (_, XdpMode::Generic) => failed(&interface, mode, error),
        (_, XdpMode::Native) => AttachError::NoNative {
            interface,
            refusal: error,
        },
        (_, XdpMode::Auto) => return Refusal::TryGeneric(error),
    })
}

fn failed(interface: &str, mode: AttachedMode, source: io::Error) -> AttachError {
    AttachError::Failed {
        interface: interface.to_owned(),
        mode,
        source,
    }
}

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads; the kernel takes the rest as zero.
#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

fn create_link(program: BorrowedFd<'_>, ifindex: u32, mode: AttachedMode) -> io::Result<OwnedFd> {
    let attr = LinkCreateAttr {
        prog_fd: program.as_fd().as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: mode.flags(),
    };
    // SAFETY: `attr` lives during the call, and its size is given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attr,
            size_of::<LinkCreateAttr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(wanted: XdpMode, errno: i32) -> Refusal {
        let error = io::Error::from_raw_os_error(errno);
        explain("eth0", wanted, AttachedMode::Native, error)
    }

    #[test]
    fn auto_falls_back_where_the_driver_refuses() {
        for errno in [libc::EOPNOTSUPP, libc::EINVAL, libc::ERANGE, libc::ENOMEM] {
            assert!(matches!(
                refuse(XdpMode::Auto, errno),
                Refusal::TryGeneric(_)
            ));
        }
    }

    #[test]
    fn native_does_not_fall_back() {
        let Refusal::Final(error) = refuse(XdpMode::Native, libc::EOPNOTSUPP) else {
            panic!("native mode was asked for");
        };
        assert!(
            error
                .to_string()
                .contains("the driver of eth0 refuses native XDP")
        );
    }

    #[test]
    fn a_second_program_is_not_worked_around() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            let Refusal::Final(error) = refuse(XdpMode::Auto, errno) else {
                panic!("generic mode would not help");
            };
            assert!(
                error.to_string().contains("is another lbd running?"),
                "{error}"
            );
        }
        let Refusal::Final(error) = refuse(XdpMode::Auto, libc::EPERM) else {
            panic!("generic mode would not help");
        };
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}
