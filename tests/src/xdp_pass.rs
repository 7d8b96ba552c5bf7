//! An XDP program that passes everything, attached in native mode.
//!
//! Frames that a balancer sends with `XDP_TX` into a veth arrive only if the *peer* has a native
//! XDP program (`veth_xdp_xmit` wants the peer's NAPI); a bare `return XDP_PASS` will do. It is
//! attached over netlink and not with a bpf link, so that it stays when this process ends.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netns::Netns;

/// `r0 = XDP_PASS; exit` (linux/bpf.h: BPF_ALU64|BPF_MOV|BPF_K with immediate 2, BPF_JMP|BPF_EXIT).
static PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// linux/bpf.h: `enum bpf_cmd`, `enum bpf_prog_type`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// linux/rtnetlink.h, linux/if_link.h.
const RTM_SETLINK: u16 = 19;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;

/// `struct nlmsghdr` and `struct ifinfomsg`. Unit: bytes.
const HEADER_LEN: usize = 16;
const IFINFO_LEN: usize = 16;

/// Attaches the program to an interface.
pub fn attach(netns: &Netns, interface: &str) -> Result<()> {
    attach_program(netns, interface, &PROGRAM)
}

/// Attaches a program without maps, in the place of what is there. Its instructions are in the
/// kernel's format (linux/bpf.h, `struct bpf_insn`), each a little-endian word.
pub fn attach_program(netns: &Netns, interface: &str, instructions: &[u64]) -> Result<()> {
    let index = netns.interface_index(interface)?;
    let program = load(instructions)
        .with_context(|| format!("the kernel refuses the XDP program {instructions:#018x?}"))?;
    netns.run(|| set_link(index, &program))?.with_context(|| {
        format!(
            "cannot attach XDP to {interface} in {} in native mode",
            netns.name()
        )
    })
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attr = ProgLoadAttr {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..ProgLoadAttr::default()
    };
    // SAFETY: `attr` is the head of a `bpf_attr` of the size given; its pointers are to a
    // static and to the instructions, which outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoadAttr>(),
        )
    };
    let Ok(fd @ 0..) = i32::try_from(fd) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_link(index: u32, program: &OwnedFd) -> Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .context("cannot open a netlink socket")?;
    send(
        netlink.as_raw_fd(),
        &set_link_message(index, program.as_raw_fd()),
        MsgFlags::empty(),
    )
    .context("cannot send RTM_SETLINK")?;
    let mut answer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())
        .context("no answer to RTM_SETLINK")?;
    parse_ack(&answer[..length])
}

fn set_link_message(index: u32, program_fd: i32) -> Vec<u8> {
    let mut xdp = attribute(IFLA_XDP_FD, &program_fd.to_ne_bytes());
    xdp.extend(attribute(IFLA_XDP_FLAGS, &XDP_FLAGS_DRV_MODE.to_ne_bytes()));
    let xdp = attribute(IFLA_XDP | NLA_F_NESTED, &xdp);

    let mut message = Vec::new();
    let length = u32::try_from(HEADER_LEN + IFINFO_LEN + xdp.len()).unwrap_or(u32::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]); // sequence number, port: one request, one answer
    message.extend([0; 4]); // AF_UNSPEC, padding, device type
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]); // flags and their mask: unchanged
    message.extend(xdp);
    message
}

/// A netlink attribute; every payload here is a multiple of 4 bytes long, so none needs padding.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

fn parse_ack(answer: &[u8]) -> Result<()> {
    ensure!(
        answer.len() >= HEADER_LEN + 4,
        "the answer to RTM_SETLINK is cut short"
    );
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    ensure!(
        kind == NLMSG_ERROR,
        "the answer to RTM_SETLINK is of kind {kind}, not an acknowledgement"
    );
    let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if errno != 0 {
        bail!(
            "RTM_SETLINK was refused: {}",
            io::Error::from_raw_os_error(-errno)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::set_link_message;

    #[test]
    fn message_lengths_add_up() {
        let message = set_link_message(7, 3);
        assert_eq!(message.len(), 16 + 16 + 4 + 8 + 8);
        assert_eq!(message[..4], 52_u32.to_ne_bytes());
        assert_eq!(message[20..24], 7_u32.to_ne_bytes());
        assert_eq!(message[32..34], 20_u16.to_ne_bytes());
    }
}
