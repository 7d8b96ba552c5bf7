//! Questions on the way of the traffic: to the VIP, at the backend's Ethernet address.
//!
//! With L2 DSR a client's packet reaches its backend as a frame to the backend's Ethernet address with the VIP
//! for its destination. Only who takes the same way finds out that a backend has lost the VIP from its
//! loopback, or that nothing listens on it there. The kernel cannot be asked to do so: to this node the VIP
//! is an address of its own, and an answer that comes from it is a martian. So these packets are made
//! and read here, over a packet socket, which sees what XDP passes to the host before the kernel judges it. TCP's
//! state machine is smoltcp's; a connection is a stream like the kernel's, and every protocol of the probes
//! runs over it unchanged.
//!
//! [`link`] is an interface with its socket, [`connection`] and [`stream`] are TCP, [`packets`] UDP and echo
//! requests, [`ports`] says why the kernel's own connections are not disturbed, and [`registry`] keeps what is
//! open. What neighbours are at which Ethernet address is the control plane's knowledge, the same that
//! the datapath forwards by ([`Ways`]).
//!
//! Nothing that a server or the LAN sends costs more than bounded memory and time: frames are filtered by the
//! kernel, parsed once, and given to the conversation that they belong to, whose buffers are bounded.

mod connection;
mod filter;
mod frame;
mod link;
mod packets;
mod ports;
mod registry;
mod socket;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::LinkRewrite;
use tokio::time::Instant;

use self::connection::Connection;
use self::frame::{Family, HOP_LIMIT, Transport, Undelivered};
use self::link::{Place, Trouble, Wire};
use self::packets::Unsent;
use self::stream::{Refusal, WireStream};
use super::Target;
use crate::health::outcome::{Failure, FailureKind};
use crate::ways::{Way, Ways};

pub(super) use self::packets::Packets;
pub use self::registry::follow;

/// How long a backend that the kernel has not resolved yet may take to be so.
const RESOLVE_TIME: Duration = Duration::from_millis(200);

/// Connects to a VIP at a backend.
pub(super) async fn stream(target: Target, vip: SocketAddr) -> Result<WireStream, Failure> {
    let (route, place) = place(target, vip, Transport::Tcp).await?;
    let mut stream = {
        let seed = u64::from_ne_bytes(registry::random().map_err(|error| local(&error))?);
        let now = Instant::now().into_std();
        let conversation = place.conversation();
        let connection = Connection::new(conversation, route.mtu_bytes, seed, now);
        WireStream::new(place, route.link, connection.map_err(|why| cannot(&why))?)
    };
    match stream.connected().await {
        Ok(()) => Ok(stream),
        Err(refusal) => Err(refused(refusal, vip)),
    }
}

/// A way to send datagrams to a VIP at a backend, and to receive what comes back.
pub(super) async fn datagrams(target: Target, vip: SocketAddr) -> Result<Packets, Failure> {
    let (route, place) = place(target, vip, Transport::Udp).await?;
    Ok(Packets::new(place, route.link, route.mtu_bytes))
}

/// As [`datagrams`], for echo requests.
pub(super) async fn echo(target: Target, vip: SocketAddr) -> Result<Packets, Failure> {
    let no_port = SocketAddr::new(vip.ip(), 0);
    let (route, place) = place(target, no_port, Transport::Echo).await?;
    Ok(Packets::new(place, route.link, route.mtu_bytes))
}

/// What a probe is doing while nothing comes back: a backend without the VIP says nothing at all.
pub(super) fn silence(target: Target, vip: SocketAddr) -> String {
    format!(
        "no answer from VIP {} at {}: is it on the backend's loopback?",
        vip.ip(),
        target.address.ip()
    )
}

impl Packets {
    /// Sends one.
    pub(super) fn send_or_fail(&self, payload: &[u8]) -> Result<(), Failure> {
        self.send(payload).map_err(|unsent| match unsent {
            Unsent::TooLong { bytes, max } => cannot(&format!(
                "{bytes} bytes do not fit into a packet of this interface, which takes {max}"
            )),
            Unsent::Trouble(trouble) => troubled(trouble),
        })
    }

    /// Receives one.
    pub(super) async fn receive_or_fail(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        self.receive(buffer).await.map_err(troubled)
    }
}

/// What it takes to send there.
struct Route {
    link: LinkRewrite,
    mtu_bytes: usize,
}

async fn place(
    target: Target,
    vip: SocketAddr,
    transport: Transport,
) -> Result<(Route, Place), Failure> {
    let (way, source) = way(target, vip.ip()).await?;
    let family = Family::of(vip.ip());
    let wire: Arc<Wire> = registry::wire(way.ifindex, family).map_err(|error| no_socket(&error))?;
    let place = wire.place(transport, source, vip).ok_or_else(|| {
        cannot(&format!(
            "no local port is free for {vip}: too many of its checks are under way"
        ))
    })?;
    let route = Route {
        link: way.link,
        mtu_bytes: wire.mtu_bytes(&way.interface),
    };
    Ok((route, place))
}

/// The way to the backend, and where to ask from. What is not resolved yet gets some time.
async fn way(target: Target, vip: IpAddr) -> Result<(Way, IpAddr), Failure> {
    let mut ways = registry::ways()
        .ok_or_else(|| cannot("checks through the datapath are asked by lbd only"))?;
    let deadline = Instant::now() + RESOLVE_TIME;
    loop {
        let known = on_way(&ways.borrow_and_update(), target, vip);
        let Err(failure) = known else {
            return known;
        };
        let changed = tokio::time::timeout_at(deadline, ways.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(failure);
        }
    }
}

fn on_way(ways: &Ways, target: Target, vip: IpAddr) -> Result<(Way, IpAddr), Failure> {
    let backend = target.address.ip();
    let way = ways.to(backend).map_err(|reason| {
        Failure::new(FailureKind::Unreachable, format_args!("no way: {reason}"))
    })?;
    let source = match target.source {
        Some(source) if ways.is_own(source) => source,
        Some(source) => {
            return Err(cannot(&format!(
                "cannot ask from {source}: this node does not have it"
            )));
        }
        None => way.source(backend, vip).ok_or_else(|| {
            cannot(&format!(
                "{} has no address to ask from: give the check a `source`",
                way.interface
            ))
        })?,
    };
    Ok((way.clone(), source))
}

fn refused(refusal: Refusal, vip: SocketAddr) -> Failure {
    match refusal {
        Refusal::Refused => Failure::new(
            FailureKind::Refused,
            format_args!("connection refused: nobody listens on VIP {vip} there"),
        ),
        Refusal::Reset => Failure::new(
            FailureKind::Closed,
            "connection reset while it was established",
        ),
        Refusal::Trouble(trouble) => troubled(trouble),
    }
}

fn troubled(trouble: Trouble) -> Failure {
    let (kind, words) = match trouble {
        Trouble::LinkDown => (FailureKind::Unreachable, "the interface is down"),
        Trouble::Undelivered(Undelivered::Port) => (
            FailureKind::Refused,
            "nobody listens (ICMP port unreachable)",
        ),
        Trouble::Undelivered(Undelivered::Prohibited) => (
            FailureKind::Unreachable,
            "a filter there forbids it (ICMP prohibited)",
        ),
        // So says a Linux that does not have an IPv6 address and forwards nothing; of IPv4 it says nothing.
        Trouble::Undelivered(Undelivered::Address) => (
            FailureKind::Unreachable,
            "the backend does not have the VIP: is it on its loopback? (ICMP unreachable)",
        ),
        Trouble::Undelivered(Undelivered::HopLimit) => {
            let reason = format!(
                "it is not there within {HOP_LIMIT} hops (ICMP time exceeded): the backend passes what is \
                 sent to the VIP on"
            );
            return Failure::new(FailureKind::Unreachable, reason);
        }
    };
    Failure::new(kind, words)
}

fn no_socket(error: &io::Error) -> Failure {
    let why = format!("cannot open a packet socket (needs CAP_NET_RAW): {error}");
    cannot(&why)
}

fn local(error: &io::Error) -> Failure {
    cannot(&error.to_string())
}

fn cannot(why: &str) -> Failure {
    Failure::new(FailureKind::Local, why)
}
