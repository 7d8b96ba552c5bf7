//! The datapath: what happens to a packet, from its Ethernet header to its verdict.
//!
//! Pure over two traits, [`Packet`] and [`Kernel`]: the XDP program, the fixtures on the host and
//! the control plane's explanations run this very code. All control flow is in this module;
//! each step has a module of its own.
//!
//! Every function here is `inline(always)`: an outlined one would pass the end of the packet as an
//! argument, which the verifier refuses ("pointer arithmetic on pkt_end prohibited").

pub mod consult;
pub mod flow;
mod forward;
pub mod life;
mod nat;
pub mod pending;
mod reply;
mod reset;
mod select;
mod service;
mod signal;

use core::marker::PhantomData;

use crate::drop_reason::DropReason;
use crate::kernel::Kernel;
use crate::packet::{OutOfBounds, Packet};
use crate::wire::ParseError;
use crate::wire::eth::{self, ETHER_TYPE_IPV4_BE, ETHER_TYPE_IPV6_BE, LinkView};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::l3::{Family, Fragment, L3View, Transport};
use crate::wire::l4::{self, L4View};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to the host, unchanged.
    Pass,
    /// Send it out of the interface that it came in on.
    Transmit,
    /// Send it out of another interface, given by its index.
    Redirect(u32),
    /// Drop it, for a counted reason.
    Drop(DropReason),
}

/// A packet is to be answered with RST: what [`decide`] leaves to [`answer_reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetWanted {
    /// On behalf of this service.
    pub service_id: u16,
}

/// Why the walk ends before the packet is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Not for a service.
    Pass,
    /// Dropped on behalf of a service (0 = none).
    Drop(u16, DropReason),
    /// To be answered with RST on behalf of a service.
    Reset(u16),
}

/// A packet's headers, parsed: what every step after the parser works on.
struct Headers<F> {
    link: LinkView,
    l3: L3View,
    transport: Transport,
    l4: L4View,
    family: PhantomData<F>,
}

/// Decides about one packet, changes it as needed and counts it.
#[inline(always)]
pub fn process<P: Packet, K: Kernel>(packet: &mut P, kernel: &K) -> Verdict {
    match decide(packet, kernel) {
        Ok(verdict) => verdict,
        Err(ResetWanted { service_id }) => answer_reset(packet, kernel, service_id),
    }
}

/// As [`process`], but for the answer to a packet whose flow is to be reset: the XDP program makes a
/// function of its own of that, which takes its own room on the stack.
///
/// # Errors
/// [`ResetWanted`]; the packet is as before and not counted yet.
#[inline(always)]
pub fn decide<P: Packet, K: Kernel>(packet: &mut P, kernel: &K) -> Result<Verdict, ResetWanted> {
    match walk(packet, kernel) {
        Ok(verdict) => Ok(verdict),
        Err(Stop::Pass) => {
            kernel.count_passed();
            Ok(Verdict::Pass)
        }
        Err(Stop::Drop(service_id, reason)) => {
            kernel.count_drop(service_id, reason);
            Ok(Verdict::Drop(reason))
        }
        Err(Stop::Reset(service_id)) => Err(ResetWanted { service_id }),
    }
}

/// Turns a packet into the RST that answers it, in the name of its VIP, and sends it back. Counted as a drop
/// with the reason [`DropReason::Reset`]; what cannot be answered is dropped for the same reason.
#[inline(always)]
pub fn answer_reset<P: Packet, K: Kernel>(packet: &mut P, kernel: &K, service_id: u16) -> Verdict {
    kernel.count_drop(service_id, DropReason::Reset);
    let answered = match eth::parse(packet) {
        Ok(link) if link.ether_type_be == ETHER_TYPE_IPV4_BE => {
            reset::answer::<Ipv4, P>(packet, link.l3_offset)
        }
        Ok(link) => reset::answer::<Ipv6, P>(packet, link.l3_offset),
        Err(error) => Err(error),
    };
    match answered {
        Ok(()) => Verdict::Transmit,
        Err(_) => Verdict::Drop(DropReason::Reset),
    }
}

/// What is no IP packet is the host's.
#[inline(always)]
fn walk<P: Packet, K: Kernel>(packet: &mut P, kernel: &K) -> Result<Verdict, Stop> {
    let link = eth::parse(packet).map_err(|_| Stop::Pass)?;
    match link.ether_type_be {
        ETHER_TYPE_IPV4_BE => steer::<Ipv4, P, K>(packet, kernel, link),
        ETHER_TYPE_IPV6_BE => steer::<Ipv6, P, K>(packet, kernel, link),
        _ => Err(Stop::Pass),
    }
}

#[inline(always)]
fn steer<F: Family, P: Packet, K: Kernel>(
    packet: &mut P,
    kernel: &K,
    link: LinkView,
) -> Result<Verdict, Stop> {
    let headers = parse::<F, P, K>(packet, kernel, link)?;
    if let Some(service) = service::find(kernel, &headers) {
        let (chosen, signal) = select::backend(packet, kernel, &service, &headers)?;
        return forward::to_backend(packet, kernel, &headers, service.id, &chosen, signal);
    }
    if let Some(nat_reply) = reply::find(kernel, &headers) {
        return reply::to_client(packet, kernel, &headers, nat_reply);
    }
    Err(leave_to_host(kernel, &headers.l3))
}

/// What is for no service is the host's, unless it is sent to a VIP at which the host is not to answer
/// (RFC 9568 section 6.4.3, Accept_Mode).
#[inline(always)]
fn leave_to_host<K: Kernel>(kernel: &K, l3: &L3View) -> Stop {
    match kernel.vip(&l3.destination) {
        Some(vip) if !vip.is_accepted() => Stop::Drop(0, DropReason::NotAccepted),
        _ => Stop::Pass,
    }
}

/// Parses down to the transport header. What cannot be parsed is the host's, unless it is sent to
/// a VIP: then the host, which owns the VIP, would answer in a backend's place.
#[inline(always)]
fn parse<F: Family, P: Packet, K: Kernel>(
    packet: &P,
    kernel: &K,
    link: LinkView,
) -> Result<Headers<F>, Stop> {
    let header = F::load(packet, link.l3_offset).map_err(|_| Stop::Pass)?;
    let l3 = F::view(&header);
    let transport = match F::transport(packet, &header, link.l3_offset) {
        Ok(transport) => transport,
        Err(error) => return Err(refuse(kernel, &l3, error.into())),
    };
    if !l4::has_ports(transport.protocol) {
        // The host owns the VIP, and has to say where it is (RFC 9568 section 6.4.3).
        if F::is_neighbour_discovery(packet, &transport) {
            return Err(Stop::Pass);
        }
        return Err(leave_to_host(kernel, &l3));
    }
    if transport.fragment != Fragment::Whole {
        return Err(refuse_fragment(packet, kernel, &l3, &transport));
    }
    match l4::parse(packet, &transport) {
        Ok(l4) => Ok(Headers {
            link,
            l3,
            transport,
            l4,
            family: PhantomData,
        }),
        Err(error) => Err(refuse(kernel, &l3, error.into())),
    }
}

/// A fragment to a VIP cannot be steered, since later ones have no ports; nor can one that a NAT
/// backend sends to a client be rewritten. Of the latter only the first is known by its port; without
/// it the others are never put together.
#[inline(always)]
fn refuse_fragment<P: Packet, K: Kernel>(
    packet: &P,
    kernel: &K,
    l3: &L3View,
    transport: &Transport,
) -> Stop {
    if transport.fragment == Fragment::First
        && let Ok(source_be) = packet.load::<u16>(transport.l4_offset)
        && let Some(reply) = reply::by_source(kernel, l3.source, source_be, transport.protocol)
    {
        return Stop::Drop(reply.service_id, DropReason::Fragment);
    }
    refuse(kernel, l3, DropReason::Fragment)
}

#[inline(always)]
fn refuse<K: Kernel>(kernel: &K, l3: &L3View, reason: DropReason) -> Stop {
    if kernel.vip(&l3.destination).is_some() {
        Stop::Drop(0, reason)
    } else {
        Stop::Pass
    }
}

impl From<ParseError> for DropReason {
    #[inline(always)]
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Truncated => Self::Truncated,
            ParseError::Malformed => Self::Malformed,
            ParseError::ExtensionHeaders => Self::ExtensionHeaders,
        }
    }
}

/// A header that was parsed cannot be out of bounds later; the verifier wants the case all the
/// same.
#[inline(always)]
const fn truncated(service_id: u16) -> impl Fn(OutOfBounds) -> Stop {
    move |_| Stop::Drop(service_id, DropReason::Truncated)
}
