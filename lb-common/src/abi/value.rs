use bytemuck::{Pod, Zeroable};

use super::Address;

/// How new flows are spread.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Consistent hash over a Maglev ring; stateless for TCP.
    Maglev = 0,
    /// Weighted round robin: an interleaved schedule walked by a shared counter; every flow is
    /// in the flow table.
    RoundRobin = 1,
}

impl Scheduler {
    /// From the byte in the map; anything unknown reads as Maglev, which needs no state.
    #[inline(always)]
    pub const fn from_byte(byte: u8) -> Self {
        if byte == Self::RoundRobin as u8 {
            Self::RoundRobin
        } else {
            Self::Maglev
        }
    }
}

/// How a packet gets to its backend.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardMode {
    /// Layer-2 direct server return: only the Ethernet addresses change.
    Dsr = 1,
    /// Gateway NAT: destination address and port become the backend's; replies come back
    /// through the balancer.
    Nat = 2,
}

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Service {
    /// First block of the ring in `RINGS`.
    pub ring_block: u32,
    /// Slots in the ring, at most [`crate::limits::RING_SLOTS_MAX`]; 0 = no backend.
    pub ring_len: u32,
    /// Idle time-out of the service's flows in the flow table. Unit: seconds.
    pub idle_timeout_s: u32,
    /// Id, 1 to [`crate::limits::SERVICE_ID_MAX`].
    pub id: u16,
    /// Distinguishes this service from an earlier one with the same id.
    pub generation: u16,
    /// A [`Scheduler`].
    pub scheduler: u8,
    /// 1: every flow is looked up and recorded in the flow table: round robin, and UDP with
    /// `flow = "pinned"`. 0: flows follow their slot, and the table is consulted where that is in
    /// transition.
    pub tracks_flows: u8,
    /// A [`NewFlows`].
    pub new_flows: u8,
    /// Always 0.
    pub pad: u8,
}

/// What happens to packets that open a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NewFlows {
    /// They are scheduled.
    #[default]
    Schedule = 0,
    /// No backend is up, and the service answers with RST (UDP: drops).
    Reset = 1,
    /// No backend is up, and the service drops them.
    Drop = 2,
}

/// What happens to the packets of a backend's flows.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// They are forwarded.
    #[default]
    Forward = 0,
    /// They are answered with RST (UDP: dropped): the backend is down and `on_down = "reset"`, or in
    /// maintenance or removed and `on_remove = "reset"`.
    Reset = 1,
    /// They are dropped: in maintenance or removed, and `on_remove = "drop"`.
    Drop = 2,
}

/// The first 12 bytes of a frame, as three words in memory order: the destination's and the
/// source's Ethernet address, ready to be written over what came in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct LinkRewrite(pub [u32; 3]);

impl LinkRewrite {
    /// From two Ethernet addresses.
    pub fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let mut octets = [0; 12];
        octets[..6].copy_from_slice(&destination);
        octets[6..].copy_from_slice(&source);
        Self(bytemuck::cast(octets))
    }

    /// The destination's Ethernet address.
    pub fn destination(&self) -> [u8; 6] {
        let octets: [u8; 12] = bytemuck::cast(self.0);
        [
            octets[0], octets[1], octets[2], octets[3], octets[4], octets[5],
        ]
    }

    /// The source's Ethernet address.
    pub fn source(&self) -> [u8; 6] {
        let octets: [u8; 12] = bytemuck::cast(self.0);
        [
            octets[6], octets[7], octets[8], octets[9], octets[10], octets[11],
        ]
    }
}

/// Value of `BACKENDS`: one cache line. A zeroed entry is no backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Backend {
    /// The next hop towards the backend.
    pub link: LinkRewrite,
    /// Egress interface.
    pub ifindex: u32,
    /// The backend's address.
    pub address: Address,
    /// Id of the service that the backend belongs to; 0 = the entry is free.
    pub service_id: u16,
    /// Distinguishes this backend from an earlier one with the same id.
    pub generation: u16,
    /// The backend's port for NAT, network byte order; 0 = the port stays as it is.
    pub port_be: u16,
    /// A [`ForwardMode`].
    pub forward: u8,
    /// 1: the next hop is known.
    pub is_resolved: u8,
    /// A [`Delivery`].
    pub delivery: u8,
    /// 1: new flows may go there, if the ring or an older record says so. 0: down, or in maintenance.
    pub is_up: u8,
    /// Always 0.
    pub pad: [u8; 2],
    /// Always 0; fills the cache line.
    pub reserved: [u32; 5],
}

impl Backend {
    /// Whether this entry is the backend that a flow recorded.
    #[inline(always)]
    pub const fn is_live(&self, generation: u16) -> bool {
        self.service_id != 0 && self.generation == generation
    }
}

/// Value of `NAT_REPLIES`: what the source of a backend's reply becomes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatReply {
    /// The VIP.
    pub vip: Address,
    /// The service's port, network byte order; 0 = the port stays as it is.
    pub port_be: u16,
    /// Id of the service.
    pub service_id: u16,
    /// Id of the backend, for its counters.
    pub backend_id: u16,
    /// Always 0.
    pub pad: u16,
}

/// Value of `VIPS`: how many services the VIP has, and whether the host's own stack answers there.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Vip(pub u32);

impl Vip {
    /// Set: what is for no service is not the host's either. A program that does not know the bit reads a
    /// count that is not zero, which is all that matters to it.
    const NOT_ACCEPTED: u32 = 1 << 31;

    /// With one service more.
    #[must_use]
    pub const fn with_service(self) -> Self {
        Self(self.0 + 1)
    }

    /// As a VIP at which the host does not answer (RFC 9568 section 6.1, Accept_Mode).
    #[must_use]
    pub const fn not_accepted(self) -> Self {
        Self(self.0 | Self::NOT_ACCEPTED)
    }

    /// Whether what is for no service is the host's.
    #[inline(always)]
    pub const fn is_accepted(self) -> bool {
        self.0 & Self::NOT_ACCEPTED == 0
    }

    /// Services on the VIP.
    pub const fn service_count(self) -> u32 {
        self.0 & !Self::NOT_ACCEPTED
    }
}

/// What kind of next hop a route has.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Behind a gateway.
    Gateway = 0,
    /// On the link itself: the destination is the next hop, to be found in `NEIGHBOURS`.
    OnLink = 1,
    /// An address of this node: the packet is the host's. Every local address must be in the
    /// table as such, or the answers of NAT backends to the node's own connections (its health
    /// checks) would be taken for replies to clients.
    Local = 2,
}

/// Value of `ROUTES`: where a reply to a client goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Route {
    /// The gateway as next hop; meaningful when `is_resolved`.
    pub link: LinkRewrite,
    /// Egress interface.
    pub ifindex: u32,
    /// The gateway's address, asked for when it is not resolved; zero unless `kind` is
    /// [`RouteKind::Gateway`].
    pub gateway: Address,
    /// A [`RouteKind`].
    pub kind: u8,
    /// 1: `link` is known. Only with [`RouteKind::Gateway`].
    pub is_resolved: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

/// Value of `NEIGHBOURS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Neighbour {
    /// Ethernet addresses of the host and of our interface towards it.
    pub link: LinkRewrite,
}

const _: () = assert!(size_of::<Service>() == 20);
const _: () = assert!(size_of::<Backend>() == 64);
const _: () = assert!(size_of::<NatReply>() == 24);
const _: () = assert!(size_of::<Vip>() == 4);
const _: () = assert!(size_of::<Route>() == 36);
const _: () = assert!(size_of::<Neighbour>() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_counts_its_services_whether_the_host_answers_or_not() {
        let two = Vip::default().with_service().with_service();
        assert!(two.is_accepted());
        assert!(!two.not_accepted().is_accepted());
        assert_eq!(
            (two.service_count(), two.not_accepted().service_count()),
            (2, 2)
        );
        assert_eq!(two.not_accepted().with_service().service_count(), 3);
        assert_ne!(Vip::default().not_accepted(), Vip::default());
    }
}
