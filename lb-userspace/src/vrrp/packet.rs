//! The VRRP packet (RFC 9568 section 5.2), and what is refused of it (section 7.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Version| Type  |  Virtual Rtr ID|   Priority    | Address count |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |Reserve|  Max Advertise Interval |           Checksum           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |  addresses, then (our own extension) the trailer of `auth`     |
//! ```

use std::net::IpAddr;

use lb_common::checksum;

use super::protocol::Family;

/// The IP protocol number (RFC 9568 section 5.1.1.4).
pub const IP_PROTOCOL: u8 = 112;
/// TTL or hop limit of each packet (RFC 9568 sections 5.1.1.3 and 5.1.2.3): it has passed no router.
pub const HOP_LIMIT: u8 = 255;
/// The protocol's version.
const VERSION: u8 = 3;
/// The fixed part. Unit: bytes.
pub const HEADER_BYTES: usize = 8;
/// Where the checksum is. Unit: bytes.
const CHECKSUM_AT: usize = 6;
/// The longest interval that can be said. Unit: centiseconds.
pub const INTERVAL_MAX_CS: u16 = 0x0fff;
/// What the address list is followed by in packets of our own.
pub(super) const TRAILER_MAGIC: [u8; 4] = *b"LBVR";

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// RFC 9568 section 5.2.2.
    Advertisement,
    /// Our own: what it says is in the trailer. 15 is the last number that there is, and nobody's.
    Extension,
}

impl PacketType {
    const fn number(self) -> u8 {
        match self {
            Self::Advertisement => 1,
            Self::Extension => 15,
        }
    }
}

/// What of a packet is under an IPv4 checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv4Checksum {
    /// A pseudo-header as well, as over IPv6: how RFC 5798 section 5.2.8 was read, and what keepalived sends and
    /// demands.
    #[default]
    PseudoHeader,
    /// The message alone: RFC 9568 section 5.2.8.
    MessageAlone,
}

/// A packet in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its kind.
    pub packet_type: PacketType,
    /// The virtual router.
    pub vrid: u8,
    /// The sender's priority; 0: it resigns.
    pub priority: u8,
    /// Between two of the sender's advertisements, 1 to 4095. Unit: centiseconds.
    pub interval_cs: u16,
    /// The sender's VIPs.
    pub addresses: Vec<IpAddr>,
}

/// Between whom a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
}

/// A packet that was taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// What it says.
    pub packet: Packet,
    /// What is behind the addresses.
    pub trailer: &'a [u8],
    /// How its checksum was made, if over IPv4.
    pub checksum: Ipv4Checksum,
}

/// Why a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has come from beyond a router (RFC 9568 section 7.1).
    #[error("hop limit {0}, not 255")]
    HopLimit(u8),
    /// It is too short for its fixed part.
    #[error("{0} bytes, fewer than 8")]
    Short(usize),
    /// It is of another version.
    #[error("VRRP version {0}, not 3")]
    Version(u8),
    /// It is of an unknown type.
    #[error("packet type {0}")]
    Type(u8),
    /// It is too short for the addresses that it counts.
    #[error("{has} bytes, but its {addresses} addresses need {needed}")]
    Truncated {
        /// Addresses, by its own count.
        addresses: u8,
        /// Unit: bytes.
        needed: usize,
        /// Unit: bytes.
        has: usize,
    },
    /// There is something behind the addresses that is not ours.
    #[error("{0} bytes behind the addresses")]
    Trailing(usize),
    /// Its interval is zero: by that, it would be dead at once.
    #[error("an interval of 0")]
    Interval,
    /// It was damaged on its way.
    #[error("wrong checksum {0:#06x}")]
    Checksum(u16),
    /// Source and destination are of two families, or not of the router's.
    #[error("of another address family")]
    Family,
    /// Unicast peers are configured, and it is from none of them.
    #[error("not from a configured peer")]
    NotAPeer,
    /// Authentication is demanded, and there is none.
    #[error("not authenticated")]
    NoTrailer,
    /// The trailer has another version.
    #[error("a trailer of version {0}, not 1")]
    TrailerVersion(u8),
    /// The trailer is not of the length that it claims, or says something unknown.
    #[error("a malformed trailer")]
    TrailerMalformed,
    /// It was not made with this cluster's secret, or was altered.
    #[error("wrong authentication code")]
    Code,
    /// It was sent before: its counter is not above the last.
    #[error("replayed or reordered: counter {counter} after {last}")]
    Replayed {
        /// Its counter.
        counter: u64,
        /// The last one.
        last: u64,
    },
    /// Its sender has not answered this router's challenge yet: it may be a recording.
    #[error("from a sender that has not answered the challenge yet")]
    Unproven,
}

impl Refusal {
    /// Whether it is a matter of authentication; else, of form.
    pub const fn is_unauthentic(self) -> bool {
        matches!(
            self,
            Self::NoTrailer
                | Self::TrailerVersion(_)
                | Self::TrailerMalformed
                | Self::Code
                | Self::Replayed { .. }
                | Self::Unproven
        )
    }
}

/// The virtual router that a packet claims to be of, if it is long enough to say that.
pub fn vrid_of(payload: &[u8]) -> Option<u8> {
    payload.get(1).copied()
}

/// Takes a packet apart. What is behind the addresses is refused unless it begins like a trailer of ours.
///
/// # Errors
/// The first of the checks of RFC 9568 section 7.1 that it fails.
pub fn parse(path: Path, hop_limit: u8, payload: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let family = family_of(path)?;
    if hop_limit != HOP_LIMIT {
        return Err(Refusal::HopLimit(hop_limit));
    }
    let Some((header, rest)) = payload.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Refusal::Short(payload.len()));
    };
    let packet_type = packet_type(header[0])?;
    let count = header[3];
    let list_bytes = usize::from(count) * address_bytes(family);
    let Some((list, trailer)) = rest.split_at_checked(list_bytes) else {
        return Err(Refusal::Truncated {
            addresses: count,
            needed: HEADER_BYTES + list_bytes,
            has: payload.len(),
        });
    };
    if !trailer.is_empty() && !trailer.starts_with(&TRAILER_MAGIC) {
        return Err(Refusal::Trailing(trailer.len()));
    }
    let checksum = verify(path, payload).ok_or(Refusal::Checksum(u16::from_be_bytes([
        header[6], header[7],
    ])))?;
    let interval_cs = u16::from_be_bytes([header[4], header[5]]) & INTERVAL_MAX_CS;
    if interval_cs == 0 {
        return Err(Refusal::Interval);
    }
    let packet = Packet {
        packet_type,
        vrid: header[1],
        priority: header[2],
        interval_cs,
        addresses: addresses(family, list),
    };
    Ok(Parsed {
        packet,
        trailer,
        checksum,
    })
}

fn packet_type(byte: u8) -> Result<PacketType, Refusal> {
    if byte >> 4 != VERSION {
        return Err(Refusal::Version(byte >> 4));
    }
    [PacketType::Advertisement, PacketType::Extension]
        .into_iter()
        .find(|known| known.number() == byte & 0xf)
        .ok_or(Refusal::Type(byte & 0xf))
}

fn family_of(path: Path) -> Result<Family, Refusal> {
    let family = Family::of(path.source);
    if family != Family::of(path.destination) {
        return Err(Refusal::Family);
    }
    Ok(family)
}

const fn address_bytes(family: Family) -> usize {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

fn addresses(family: Family, list: &[u8]) -> Vec<IpAddr> {
    match family {
        Family::Ipv4 => {
            let (chunks, _) = list.as_chunks::<4>();
            chunks.iter().map(|octets| IpAddr::from(*octets)).collect()
        }
        Family::Ipv6 => {
            let (chunks, _) = list.as_chunks::<16>();
            chunks.iter().map(|octets| IpAddr::from(*octets)).collect()
        }
    }
}

impl Packet {
    /// The packet without trailer and with a checksum of zero. Addresses beyond the 255th are left out.
    pub fn emit(&self) -> Vec<u8> {
        let listed = &self.addresses[..self.addresses.len().min(usize::from(u8::MAX))];
        let interval = self.interval_cs.clamp(1, INTERVAL_MAX_CS).to_be_bytes();
        let mut bytes = vec![
            VERSION << 4 | self.packet_type.number(),
            self.vrid,
            self.priority,
            listed.len() as u8,
            interval[0],
            interval[1],
            0,
            0,
        ];
        for address in listed {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        bytes
    }
}

/// Puts the checksum into a packet that is otherwise complete.
pub fn seal(path: Path, form: Ipv4Checksum, payload: &mut [u8]) {
    if let Some(field) = payload.get_mut(CHECKSUM_AT..HEADER_BYTES) {
        field.fill(0);
        let sum = sum(path, form, payload);
        payload[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// How the checksum was made, if it is right in any way. Over IPv4 both ways are taken: the RFCs and their readers
/// differ.
fn verify(path: Path, payload: &[u8]) -> Option<Ipv4Checksum> {
    let forms = match path.source {
        IpAddr::V4(_) => &[Ipv4Checksum::PseudoHeader, Ipv4Checksum::MessageAlone][..],
        IpAddr::V6(_) => &[Ipv4Checksum::PseudoHeader],
    };
    forms
        .iter()
        .find(|form| sum(path, **form, payload) == 0)
        .copied()
}

/// The checksum as it stands in memory; 0 over a packet that has a right one.
fn sum(path: Path, form: Ipv4Checksum, payload: &[u8]) -> u16 {
    let mut bytes = match (path.source, path.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) if form == Ipv4Checksum::PseudoHeader => {
            let mut header = [source.octets(), destination.octets()].concat();
            header.extend([0, IP_PROTOCOL]);
            header.extend((payload.len() as u16).to_be_bytes());
            header
        }
        // RFC 8200 section 8.1.
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = [source.octets(), destination.octets()].concat();
            header.extend((payload.len() as u32).to_be_bytes());
            header.extend([0, 0, 0, IP_PROTOCOL]);
            header
        }
        _ => Vec::new(),
    };
    bytes.extend_from_slice(payload);
    checksum::of_bytes(&bytes)
}
