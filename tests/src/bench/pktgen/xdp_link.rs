//! A program on an interface, in native mode, by a bpf link: gone when the link is dropped, and
//! exchanged without a gap.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use lb_lab::Netns;

/// linux/bpf.h: `enum bpf_cmd`, `enum bpf_attach_type`.
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_XDP: u32 = 37;
/// linux/if_link.h. Never another mode: on a veth, generic mode is another path altogether.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// An attached program.
#[derive(Debug)]
pub(crate) struct XdpLink {
    fd: OwnedFd,
}

/// `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Create {
    program_fd: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct Update {
    link_fd: u32,
    program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

impl XdpLink {
    /// Attaches `program` to an interface of `netns`.
    pub(crate) fn attach(netns: &Netns, interface: &str, program: &ProgramFd) -> Result<Self> {
        let attr = Create {
            program_fd: raw(program),
            ifindex: netns.interface_index(interface)?,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        // The kernel looks for the interface in the calling thread's namespace.
        let fd = netns.run(|| bpf(BPF_LINK_CREATE, &attr))?;
        let fd = fd.with_context(|| format!("cannot attach XDP to {interface} in native mode"))?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Puts another program in the place of the one that is attached.
    pub(crate) fn replace(&self, program: &ProgramFd) -> Result<()> {
        let attr = Update {
            link_fd: self.fd.as_raw_fd().cast_unsigned(),
            program_fd: raw(program),
            flags: 0,
            old_program_fd: 0,
        };
        bpf(BPF_LINK_UPDATE, &attr).context("cannot exchange the attached XDP program")?;
        Ok(())
    }
}

fn raw(program: &ProgramFd) -> u32 {
    program.as_fd().as_raw_fd().cast_unsigned()
}

/// `attr` is the head of a `bpf_attr` of this command, without pointers.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: the attribute outlives the call, has the length given, and holds numbers only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(value @ 0..) => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
