//! "Something has changed": the kernel's multicast groups, as a level and not as a stream of events.
//! Which entry changed is not looked at; whoever listens reads the tables again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

use crate::loader::readiness;

/// Groups as bits, one less than their number in `enum rtnetlink_groups`.
const GROUPS: u32 = 1 << (libc::RTNLGRP_LINK - 1)
    | 1 << (libc::RTNLGRP_NEIGH - 1)
    | 1 << (libc::RTNLGRP_IPV4_IFADDR - 1)
    | 1 << (libc::RTNLGRP_IPV4_ROUTE - 1)
    | 1 << (libc::RTNLGRP_IPV6_IFADDR - 1)
    | 1 << (libc::RTNLGRP_IPV6_ROUTE - 1);

/// Bytes read at once. A longer datagram is cut off: its first header is all that matters.
const BUFFER_BYTES: usize = 32 * 1024;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER_BYTES: usize = 16;

/// Which tables to read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Links, addresses or routes.
    pub topology: bool,
    /// Neighbours.
    pub neighbours: bool,
}

impl Changes {
    /// Everything.
    pub const ALL: Self = Self {
        topology: true,
        neighbours: true,
    };

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            topology: self.topology || other.topology,
            neighbours: self.neighbours || other.neighbours,
        }
    }

    /// Whether anything has changed.
    pub const fn any(self) -> bool {
        self.topology || self.neighbours
    }
}

/// A socket that hears of changes, in the network namespace of the thread that opened it.
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
}

impl Monitor {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> anyhow::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .context("cannot open a netlink socket")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))
            .context("cannot listen to changes of the network")?;
        Ok(Self {
            socket: readiness::readable(socket).context("cannot poll a netlink socket")?,
        })
    }

    /// Waits for changes and returns what has changed since the last call.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn changed(&mut self) -> io::Result<Changes> {
        loop {
            let mut guard = self.socket.readable().await?;
            let changes = drain(guard.get_inner())?;
            guard.clear_ready();
            if changes.any() {
                return Ok(changes);
            }
        }
    }
}

/// Reads all that waits.
fn drain(socket: &OwnedFd) -> io::Result<Changes> {
    let mut changes = Changes::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => changes = changes.and(changes_in(&buffer[..length])),
            Err(nix::Error::EAGAIN) => return Ok(changes),
            // The buffer overflowed: something was missed, so anything may have changed.
            Err(nix::Error::ENOBUFS) => changes = Changes::ALL,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the messages of one datagram say has changed.
fn changes_in(mut datagram: &[u8]) -> Changes {
    let mut changes = Changes::default();
    while let Some((length, message_type)) = header(datagram) {
        changes = changes.and(match message_type {
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => Changes {
                topology: false,
                neighbours: true,
            },
            _ => Changes::ALL,
        });
        let next = length.max(HEADER_BYTES).next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
    }
    changes
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let length = u32::from_ne_bytes(header[..4].try_into().ok()?);
    let message_type = u16::from_ne_bytes(header[4..6].try_into().ok()?);
    Some((length as usize, message_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message_type: u16, payload_bytes: usize) -> Vec<u8> {
        let length = HEADER_BYTES + payload_bytes;
        let mut bytes = vec![0; length.next_multiple_of(4)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&message_type.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_neighbour_does_not_change_the_topology() {
        let changes = changes_in(&message(libc::RTM_NEWNEIGH, 13));
        assert!(changes.neighbours && !changes.topology);
    }

    #[test]
    fn every_message_of_a_datagram_counts() {
        let mut datagram = message(libc::RTM_NEWNEIGH, 13);
        datagram.extend(message(libc::RTM_DELROUTE, 8));
        assert_eq!(changes_in(&datagram), Changes::ALL);
    }

    #[test]
    fn broken_datagrams_end() {
        assert!(!changes_in(&[]).any());
        assert!(!changes_in(&[1; HEADER_BYTES - 1]).any());
        assert!(changes_in(&[0; HEADER_BYTES * 3]).any());
        assert!(changes_in(&[0xff; HEADER_BYTES * 3]).any());
    }

    #[tokio::test]
    async fn a_socket_can_be_opened_without_privilege() {
        let mut monitor = Monitor::open().unwrap();
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, monitor.changed());
        assert!(nothing.await.is_err());
    }
}
