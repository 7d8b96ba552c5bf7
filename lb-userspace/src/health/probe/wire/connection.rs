//! A TCP connection without I/O: packets and the time go in, packets come out. The state machine is
//! smoltcp's; one of its interfaces with one socket makes one connection.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as Ticks;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Packet, Ipv6Packet};

use super::frame::{Conversation, HOP_LIMIT, LINK_BYTES};

/// What a server may send ahead of its being read. Unit: bytes.
const RECEIVE_BYTES: usize = 16 * 1024;

/// What may be written ahead of its being acknowledged: any request but those with many headers. Unit:
/// bytes.
const SEND_BYTES: usize = 4 * 1024;

/// A connection of our own.
pub(super) struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    port: Port,
    began: Instant,
    was_open: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No answer to the SYN yet.
    Opening,
    /// It is there; the server may have closed its half.
    Open,
    /// The SYN was answered by a RST.
    Refused,
    /// It was reset.
    Reset,
}

/// What reading or writing has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes, at least one.
    Done(usize),
    /// Nothing at the moment.
    Wait,
    /// The server has closed its half, and all has been read.
    End,
    /// There is no connection any more.
    Reset,
}

impl Connection {
    /// A connection to be opened; [`Connection::advance`] begins. `seed` is random: the first sequence
    /// number follows from it.
    pub(super) fn new(
        conversation: &Conversation,
        mtu_bytes: usize,
        seed: u64,
        now: Instant,
    ) -> Result<Self, String> {
        let mut port = Port {
            mtu_bytes,
            departing: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut port.attached(None), Ticks::ZERO);
        let (local, remote) = (conversation.local, conversation.remote);
        let mut addresses = Ok(());
        interface.update_ip_addrs(|list| {
            // Every address is on this link: a prefix of no bits.
            addresses = list.push(IpCidr::new(local.ip().into(), 0));
        });
        addresses.map_err(|_| "the connection has no room for an address".to_owned())?;
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; RECEIVE_BYTES]),
            SocketBuffer::new(vec![0; SEND_BYTES]),
        );
        socket.set_hop_limit(Some(HOP_LIMIT));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket
            .connect(interface.context(), remote, local)
            .map_err(|error| {
                format!("no connection from {local} to {remote} is possible: {error}")
            })?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            interface,
            sockets,
            handle,
            port,
            began: now,
            was_open: false,
        })
    }

    /// Does what is due at this time, after a packet has come if one has. Returns the frames to be sent,
    /// each with [`LINK_BYTES`] of room in front.
    pub(super) fn advance(&mut self, now: Instant, packet: Option<&[u8]>) -> Vec<Vec<u8>> {
        let ticks = self.ticks(now);
        let mut attached = self.port.attached(packet);
        self.interface.poll(ticks, &mut attached, &mut self.sockets);
        self.was_open |= self.is_synchronised();
        std::mem::take(&mut self.port.departing)
    }

    /// Ends it by a RST; [`Connection::advance`] sends that.
    pub(super) fn abort(&mut self) {
        self.socket().abort();
    }

    /// When it is to be advanced at the latest, without a packet; `None` = not before one comes.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let ticks = self.ticks(now);
        let wait = self.interface.poll_delay(ticks, &self.sockets)?;
        Some(now + Duration::from(wait))
    }

    pub(super) fn progress(&self) -> Progress {
        match self.state() {
            State::Closed if self.was_open => Progress::Reset,
            State::Closed => Progress::Refused,
            State::Listen | State::SynSent | State::SynReceived => Progress::Opening,
            _ => Progress::Open,
        }
    }

    /// Reads what has come. The window that opens is told at the next [`Connection::advance`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Step {
        let socket = self.socket();
        if socket.can_recv() {
            // It has just said that there is something.
            return socket.recv_slice(buffer).map_or(Step::Reset, Step::Done);
        }
        match socket.state() {
            State::Closed => Step::Reset,
            _ if socket.may_recv() => Step::Wait,
            State::SynSent | State::SynReceived => Step::Wait,
            _ => Step::End,
        }
    }

    /// Takes bytes to be sent at the next [`Connection::advance`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Step {
        let socket = self.socket();
        if !socket.may_send() {
            return match socket.state() {
                State::SynSent | State::SynReceived => Step::Wait,
                _ => Step::Reset,
            };
        }
        match socket.send_slice(bytes) {
            Ok(0) => Step::Wait,
            Ok(count) => Step::Done(count),
            Err(_) => Step::Reset,
        }
    }

    fn is_synchronised(&self) -> bool {
        !matches!(
            self.state(),
            State::Closed | State::Listen | State::SynSent | State::SynReceived
        )
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn ticks(&self, now: Instant) -> Ticks {
        let elapsed = now.saturating_duration_since(self.began);
        Ticks::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

/// What smoltcp takes for a network card: one packet may be in it, and what it sends is collected.
struct Port {
    mtu_bytes: usize,
    departing: Vec<Vec<u8>>,
}

impl Port {
    const fn attached<'a>(&'a mut self, arrived: Option<&'a [u8]>) -> Attached<'a> {
        Attached {
            port: self,
            arrived,
        }
    }
}

struct Attached<'a> {
    port: &'a mut Port,
    arrived: Option<&'a [u8]>,
}

struct Arrived<'a>(&'a [u8]);

struct Departing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Attached<'_> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Departing<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: Ticks) -> Option<(Arrived<'_>, Departing<'_>)> {
        let packet = self.arrived.take()?;
        Some((Arrived(packet), Departing(&mut self.port.departing)))
    }

    fn transmit(&mut self, _now: Ticks) -> Option<Departing<'_>> {
        Some(Departing(&mut self.port.departing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.port.mtu_bytes;
        // What comes in was verified already, or cannot be: see `frame::Checksum`.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl TxToken for Departing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; LINK_BYTES + length];
        let filled = fill(&mut frame[LINK_BYTES..]);
        limit_hops(&mut frame[LINK_BYTES..]);
        self.0.push(frame);
        filled
    }
}

/// What a socket answers at once (to a repeated SYN-ACK, for one) has 64 hops, whatever was set for it: see
/// `Socket::ack_reply` of smoltcp 0.14.
fn limit_hops(packet: &mut [u8]) {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let mut ip = Ipv4Packet::new_unchecked(packet);
            ip.set_hop_limit(HOP_LIMIT);
            ip.fill_checksum();
        }
        Some(6) => Ipv6Packet::new_unchecked(packet).set_hop_limit(HOP_LIMIT),
        _ => {}
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
