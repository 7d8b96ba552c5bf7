//! Requests to the kernel over rtnetlink that wait for the answer: for a process of one thread, whose next step
//! depends on it anyway. An answer takes the kernel microseconds.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::{Socket, SocketAddr, protocols};

use super::parse;
use super::socket::{is_absent, vip_message};
use super::view::{Link, LinkAddress, LocalAddress};

/// The kernel answers at once, or never: a lost answer must not stop the process. Unit: seconds.
const ANSWER_TIMEOUT_S: i64 = 1;

/// More than the kernel puts into one datagram (`NLMSG_GOODSIZE`, 32 KiB at most for a dump). Unit: bytes.
const BUFFER_BYTES: usize = 65_536;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` (`linux/rtnetlink.h`), as bits.
const WATCHED_GROUPS: u32 = 1 | 1 << 4 | 1 << 8;

/// Datagrams that one look at the watch takes in: what is left makes it ready again.
const WATCH_DRAIN_MAX: usize = 256;

/// An interface, with what the datapath needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub ifindex: u32,
    /// What everybody knows of it.
    pub link: Link,
    /// The id of the XDP program on it.
    pub xdp_program: Option<u32>,
    /// What it is, such as `macvlan`, where the kernel says so.
    pub kind: Option<String>,
    /// The interface that it lies on, such as a VLAN device's.
    pub lower: Option<u32>,
}

/// What an interface is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSwitch {
    /// Up.
    On,
    /// Down.
    Off,
}

/// An address of an interface, with what makes it fit to be sent from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The address.
    pub local: LocalAddress,
    /// Whether it counts on its link only.
    pub is_link_local: bool,
    /// Whether the kernel lets it be used: not tentative, not a duplicate.
    pub is_usable: bool,
}

/// A connection to the kernel's tables of links and addresses, in the network namespace of the thread that opened
/// it.
pub struct BlockingNetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl BlockingNetlink {
    /// Opens a connection.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let timeout = TimeVal::new(ANSWER_TIMEOUT_S, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// The interface of this name; `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn port(&mut self, name: &str) -> io::Result<Option<Port>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.port_of(message)
    }

    /// The interface of this index; `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn port_by_index(&mut self, ifindex: u32) -> io::Result<Option<Port>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.port_of(message)
    }

    fn port_of(&mut self, message: LinkMessage) -> io::Result<Option<Port>> {
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.iter().find_map(port)),
        }
    }

    /// The addresses of an interface, in the kernel's order: primary ones first.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn addresses(&mut self, ifindex: u32) -> io::Result<Vec<PortAddress>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request(request, NLM_F_DUMP)?;
        let addresses = answers.iter().filter_map(port_address);
        Ok(addresses
            .filter(|address| address.local.ifindex == ifindex)
            .collect())
    }

    /// Adds a VIP, as [`super::Netlink::add_vip`] does.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AlreadyExists`] if the interface has it.
    pub fn add_vip(&mut self, ifindex: u32, vip: IpAddr) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewAddress(vip_message(ifindex, vip));
        let flags = NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        self.request(request, flags).map(drop)
    }

    /// Removes a VIP; fine if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_vip(&mut self, ifindex: u32, vip: IpAddr) -> io::Result<()> {
        let request = RouteNetlinkMessage::DelAddress(vip_message(ifindex, vip));
        fine_if_absent(self.request(request, NLM_F_ACK))
    }

    /// Makes a macvlan device, down, on the interface `lower`: while it is up, frames to its Ethernet address are
    /// this node's too. Mode `bridge`: a multicast frame that another node sends from the same Ethernet address is
    /// heard on the interface below, too (`macvlan_handle_frame`; in mode `private` it is not).
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::AlreadyExists`] if there is an interface of this name.
    pub fn add_macvlan(&mut self, name: &str, lower: u32, address: LinkAddress) -> io::Result<()> {
        let mut message = LinkMessage::default();
        let mode = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(lower),
            LinkAttribute::Address(address.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(mode),
            ]),
        ];
        let flags = NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        self.request(RouteNetlinkMessage::NewLink(message), flags)
            .map(drop)
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_link(&mut self, ifindex: u32, switch: LinkSwitch) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = match switch {
            LinkSwitch::On => LinkFlags::Up,
            LinkSwitch::Off => LinkFlags::empty(),
        };
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK)
            .map(drop)
    }

    /// Removes an interface; fine if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_link(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        fine_if_absent(self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK))
    }

    /// Sends a request and collects what comes back until the kernel says that this is all.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        while !self.receive(&mut answers)? {}
        Ok(answers)
    }

    /// Takes one datagram in; whether it was the last one of the answer.
    fn receive(&mut self, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let mut free = self.buffer.as_mut_slice();
        let (length_bytes, _) = self.socket.recv_from(&mut free, 0)?;
        let mut rest = self.buffer.get(..length_bytes).unwrap_or_default();
        while !rest.is_empty() {
            let message: NetlinkMessage<RouteNetlinkMessage> =
                NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            let padded = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(padded.max(4)..).unwrap_or_default();
            // An answer to an earlier request, which was given up.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Hears of each change of links and addresses.
pub struct NetworkWatch(Socket);

impl NetworkWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, WATCHED_GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Whether there was a change since the last look. What changed is not looked at: the tables say what is, and
    /// a message that got lost (`ENOBUFS`) is a change, too.
    pub fn take_change(&self) -> bool {
        let mut head = [0; 16];
        for heard in 0..WATCH_DRAIN_MAX {
            let received = self.0.recv_from(&mut head.as_mut_slice(), 0);
            match received.map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::ENOBUFS)) => {}
                Err(_) => return heard > 0,
            }
        }
        true
    }
}

impl AsRawFd for NetworkWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for NetworkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn fine_if_absent(result: io::Result<Vec<RouteNetlinkMessage>>) -> io::Result<()> {
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other.map(drop),
    }
}

fn port(message: &RouteNetlinkMessage) -> Option<Port> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let (ifindex, link) = parse::link(message)?;
    let mut port = Port {
        ifindex,
        link,
        xdp_program: None,
        kind: None,
        lower: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Xdp(parts) => port.xdp_program = parts.iter().find_map(program),
            LinkAttribute::Link(lower) => port.lower = Some(*lower),
            LinkAttribute::LinkInfo(parts) => port.kind = parts.iter().find_map(kind),
            _ => {}
        }
    }
    Some(port)
}

fn program(part: &LinkXdp) -> Option<u32> {
    match part {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    }
}

fn kind(part: &LinkInfo) -> Option<String> {
    match part {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn port_address(message: &RouteNetlinkMessage) -> Option<PortAddress> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    let flags = message.attributes.iter().find_map(|one| match one {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let is_ipv6 = message.header.family == AddressFamily::Inet6;
    Some(PortAddress {
        local: parse::address(message)?,
        is_link_local: is_ipv6 && message.header.scope == AddressScope::Link,
        is_usable: flags.is_none_or(|flags| !flags.intersects(unusable)),
    })
}
