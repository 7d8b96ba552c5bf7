//! What goes into a virtual router's machine and what comes out of it. The machine itself is
//! [`super::machine::Router`].
//!
//! All times are of CLOCK_MONOTONIC, in microseconds: at an interval of 10 ms, Skew_Time is a matter of 40 µs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::auth::Key;
use super::packet::Refusal;
use super::priority::Condition;
use super::protocol::{Family, PeerFacts, State};
use crate::netlink::view::LinkAddress;

/// Where advertisements go to over IPv4 (RFC 9568 section 5.1.1.2).
pub const MULTICAST_IPV4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where advertisements go to over IPv6 (RFC 9568 section 5.1.2.2).
pub const MULTICAST_IPV6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// What a virtual router is: one address family of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// This node's name: with equal priorities and the same news, the smaller name is first.
    pub node: String,
    /// The group's name.
    pub group: String,
    /// The address family: those of another in `vips` and `peers` are left out.
    pub family: Family,
    /// The virtual router's id.
    pub vrid: u8,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The configured priority, 1 to 255; 255 = the owner of the addresses.
    pub priority: u8,
    /// Between two advertisements, 1 to 4095. Unit: centiseconds.
    pub interval_cs: u16,
    /// Whether to take over from an Active of lower priority.
    pub preempt: bool,
    /// How long to have heard such a one before that. Unit: milliseconds.
    pub preempt_delay_ms: u32,
    /// Unicast peers; empty: multicast.
    pub peers: Vec<IpAddr>,
    /// What packets are sent from: it is under the checksum and the authentication, and it decides between equal
    /// priorities.
    pub source: IpAddr,
    /// With a key, advertisements are authenticated, and nothing else is believed.
    pub key: Option<Key>,
}

impl RouterConfig {
    /// Where packets go to.
    pub fn destinations(&self) -> Vec<IpAddr> {
        let is_of_family = |address: &&IpAddr| Family::of(**address) == self.family;
        let peers: Vec<IpAddr> = self.peers.iter().filter(is_of_family).copied().collect();
        match (peers.is_empty(), self.family) {
            (false, _) => peers,
            (true, Family::Ipv4) => vec![MULTICAST_IPV4.into()],
            (true, Family::Ipv6) => vec![MULTICAST_IPV6.into()],
        }
    }

    /// The VIPs of the family as they stand in an advertisement: a link-local one comes first (RFC 9568 section
    /// 5.2.9), and no more than can be counted there.
    pub fn listed_vips(&self) -> Vec<IpAddr> {
        let is_global = |vip: &IpAddr| match vip {
            IpAddr::V4(_) => true,
            IpAddr::V6(vip) => !vip.is_unicast_link_local(),
        };
        let is_of_family = |vip: &&IpAddr| Family::of(**vip) == self.family;
        let mut vips: Vec<IpAddr> = self.vips.iter().filter(is_of_family).copied().collect();
        vips.sort_by_key(is_global);
        vips.truncate(usize::from(u8::MAX));
        vips
    }

    /// The advertisement interval. Unit: microseconds.
    pub fn interval_us(&self) -> u64 {
        u64::from(self.interval_cs.clamp(1, 0x0fff)) * US_PER_CS
    }
}

/// Microseconds in a centisecond.
pub(crate) const US_PER_CS: u64 = 10_000;
/// Microseconds in a millisecond.
pub(crate) const US_PER_MS: u64 = 1_000;

/// What is random about a router: drawn anew for each [`super::machine::Router`] that is made, and never used twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The number by which peers know this router until its process ends. From a good random source.
    pub id: u64,
    /// What challenges are derived from. From a good random source; secret.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Session({:016x})", self.id)
    }
}

/// What the router of a former process was, for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    /// Its state.
    pub state: State,
    /// Whether it had handed the VIPs over on demand, so that it was not to take them back by its priority.
    pub yields: bool,
}

/// What happens to a router.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// It is to take part (RFC 9568 section 6.4.1).
    Startup,
    /// It is to take no part any more. The machine hands over as well as it can, and says [`Output::Stopped`] when
    /// its process may end: at once, or within a deadline of its own.
    Shutdown,
    /// A packet of IP protocol 112 came in on the group's interface.
    Received {
        /// Who sent it.
        source: IpAddr,
        /// To which address: it is under the checksum.
        destination: IpAddr,
        /// TTL or hop limit, as it arrived.
        hop_limit: u8,
        /// What is behind the IP header.
        payload: &'a [u8],
    },
    /// The priority at present, and what is not well.
    Condition(&'a Condition),
    /// What the peers say over the sync link: all of them, in place of what was said before. Ages count from now.
    PeerFacts(&'a [PeerFacts]),
    /// Why this node has not caught up with its peers, if so.
    Behind(Option<&'a str>),
    /// This address has just answered a probe.
    ProbeAnswered {
        /// Which.
        address: IpAddr,
    },
    /// The interface has come up: the link may have forgotten where the VIPs are.
    LinkUp,
    /// Somebody else claims a VIP, by ARP or neighbour discovery.
    Disputed(Claim),
    /// The VIPs are to go to a peer. Answered by [`Output::HandedOver`].
    HandOver,
    /// [`super::machine::Router::deadline`] has come. Pending packets come first.
    Timer,
    /// The process did not run when it should have. To be said before the packets that came in meanwhile, and those
    /// before [`Input::Timer`].
    Overslept {
        /// How late it is. Unit: microseconds.
        by_us: u64,
    },
}

/// What somebody else has said of a VIP on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The VIP.
    pub vip: IpAddr,
    /// The link-layer address at which it is said to be.
    pub by: LinkAddress,
}

impl Claim {
    /// That address, as people write it.
    pub fn by_text(&self) -> String {
        self.by.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A packet of IP protocol 112 with TTL or hop limit 255, from [`RouterConfig::source`].
    Send {
        /// To this address, which may be a multicast group's.
        to: IpAddr,
        /// What is behind the IP header, checksum and all.
        payload: Vec<u8>,
    },
    /// These VIPs are this node's from now on; those that are already need nothing.
    AddVips(Vec<IpAddr>),
    /// These VIPs are not this node's any more.
    RemoveVips(Vec<IpAddr>),
    /// Tell the link that these VIPs are here.
    Announce(Vec<IpAddr>),
    /// Ask on the link for this address: [`Input::ProbeAnswered`] if its owner answers.
    Probe {
        /// The Active's.
        address: IpAddr,
    },
    /// The state has changed.
    Changed {
        /// What it was.
        from: State,
        /// What it is.
        to: State,
        /// Why, in words.
        reason: String,
    },
    /// What became of [`Input::HandOver`].
    HandedOver(Result<Handed, HandOverError>),
    /// Another one is Active, too.
    Conflict {
        /// Who, if that is known by an advertisement.
        with: Option<IpAddr>,
        /// Its priority.
        priority: u8,
        /// What comes of it.
        outcome: Outcome,
    },
    /// Somebody else claims a VIP of this Active router, and no advertisement explains it. The router announces its
    /// VIPs again.
    Disputed(Claim),
    /// An Active lists other VIPs: one of the two configurations is wrong. Said once for each list, and now and then
    /// if there are several.
    AddressesDiffer {
        /// Who.
        source: IpAddr,
        /// What it lists.
        addresses: Vec<IpAddr>,
    },
    /// Somebody advertises this virtual router, and one of the two does not believe the other: both may be Active. Said
    /// when it begins, and now and then while it lasts.
    Distrusted {
        /// Who.
        source: IpAddr,
        /// What is between them.
        why: Distrust,
    },
    /// A packet was refused. There may be many: whoever writes them down limits that.
    Refused {
        /// Who sent it.
        source: IpAddr,
        /// Why.
        reason: Refusal,
    },
    /// [`Input::Shutdown`] has been dealt with.
    Stopped,
}

/// Why two routers do not believe each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It authenticates with another secret.
    OtherSecret,
    /// It does not authenticate, and this one demands it.
    Unsigned,
    /// It authenticates in a way that this version does not know.
    OtherVersion,
    /// It authenticates, and this one does not.
    Signed,
}

impl Distrust {
    /// In words, with the way out.
    pub fn about(self, source: IpAddr) -> String {
        let what = match self {
            Self::OtherSecret => "with another secret",
            Self::Unsigned => "without authentication, which this node demands",
            Self::OtherVersion => "authenticated as another version does it",
            Self::Signed => "with authentication, and this node does not",
        };
        format!(
            "{source} advertises {what}: it and this node do not believe each other, and both may have the VIPs; take \
             the one that shall be Backup off (`lbd --detach`), make secret_file and `authenticate` the same on both, \
             and start it again"
        )
    }
}

/// To whom the VIPs went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The new Active.
    pub to: IpAddr,
    /// From the request to its advertisement. Unit: microseconds.
    pub after_us: u64,
}

/// What comes of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This router stays Active, and says so.
    Won,
    /// This router has withdrawn.
    Lost,
}

/// Why a hand-over did not take place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// There is nothing to hand over.
    #[error("this node is {0:?}, not Active: ask the Active one")]
    NotActive(State),
    /// One is under way.
    #[error("a hand-over is under way")]
    UnderWay,
    /// Nobody can take it.
    #[error("no peer is ready: {0}")]
    NobodyReady(String),
    /// The peer does not want it.
    #[error("{peer} refuses: {reason}")]
    Declined {
        /// Who.
        peer: IpAddr,
        /// Why.
        reason: &'static str,
    },
    /// The peer has said nothing.
    #[error(
        "no advertisement of another router within {waited_ms} ms; this node goes on as Active"
    )]
    Unanswered {
        /// Unit: milliseconds.
        waited_ms: u64,
    },
}
