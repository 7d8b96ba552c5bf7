//! A packet socket: the only place here that speaks with the kernel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::filter;
use super::frame::{Checksum, Family};
use crate::loader::readiness::OwnsDescriptor;

/// Room for answers to thousands of questions at once: each frame takes one or two KiB of it in the
/// kernel's count. What does not fit is lost, and sent again by TCP a second later. Unit: bytes.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// Where a packet's checksum stands (`PACKET_AUXDATA`, `struct tpacket_auxdata`, `linux/if_packet.h`).
const AUXDATA: usize = size_of::<libc::tpacket_auxdata>();

/// To be filled in by hardware that it does not meet (`TP_STATUS_CSUMNOTREADY`).
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// The kernel has looked at it (`TP_STATUS_CSUM_VALID`).
const CHECKSUM_VALID: u32 = 1 << 7;

/// Takes part in one interface's traffic of one family, in the network namespace of the thread that opened
/// it. What comes in is filtered by [`filter::program`].
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
}

/// A control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

impl PacketSocket {
    /// Opens one. The filter is there before the first packet.
    pub(super) fn open(ifindex: u32, family: Family) -> io::Result<Self> {
        // Protocol 0 receives nothing until it is bound.
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
        socket.attach_filter(&filter::program(family))?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        // Above `net.core.rmem_max` with CAP_NET_ADMIN only; else up to that.
        if set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            RECEIVE_BUFFER_BYTES as libc::c_int,
        )
        .is_err()
        {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        bind(&socket, ifindex, family)?;
        Ok(Self { socket })
    }

    /// Sends a frame. Does not wait.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Takes the next frame, if it is whole; `WouldBlock` if there is none. `None`: one that is too long.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Checksum)>> {
        let mut control = Control([0; 64]);
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: a structure of integers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: the message's pointers are to memory of the given lengths that lives during the call.
        let received = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut message, 0) };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return Ok(None);
        }
        Ok(Some((received as usize, checksum(&message))))
    }
}

// SAFETY: the socket is closed on drop only, and never exchanged.
unsafe impl OwnsDescriptor for PacketSocket {}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What the kernel says of a packet's checksum.
fn checksum(message: &libc::msghdr) -> Checksum {
    // SAFETY: recvmsg has filled in the message, whose control buffer lives as long as it.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return Checksum::Verify;
    }
    // SAFETY: not null, so it is within the control buffer, which is aligned for it.
    let header = unsafe { &*header };
    let is_auxdata = header.cmsg_level == libc::SOL_PACKET
        && header.cmsg_type == libc::PACKET_AUXDATA
        && header.cmsg_len as usize >= size_of::<libc::cmsghdr>() + AUXDATA;
    if !is_auxdata {
        return Checksum::Verify;
    }
    // SAFETY: as long as it says, within the control buffer; any bytes are a value of it.
    let auxdata: libc::tpacket_auxdata =
        unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast()) };
    match auxdata.tp_status & (CHECKSUM_NOT_READY | CHECKSUM_VALID) {
        0 => Checksum::Verify,
        _ => Checksum::Trusted,
    }
}

fn set(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a value of the given length that lives during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    outcome(result)
}

fn bind(socket: &Socket, ifindex: u32, family: Family) -> io::Result<()> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = family.ether_type().to_be();
    address.sll_ifindex = ifindex as i32;
    // SAFETY: the pointer is to an address of the given length that lives during the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    outcome(result)
}

/// The largest IP packet that an interface takes. Unit: bytes.
pub(super) fn mtu_bytes(socket: &PacketSocket, interface: &str) -> io::Result<usize> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    // The last byte stays 0.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the pointer is to a request that lives during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    outcome(result)?;
    // SAFETY: SIOCGIFMTU has filled in this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).map_err(io::Error::other)
}

fn outcome(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
