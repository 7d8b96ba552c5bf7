//! What the datapath needs of a network header, whichever family it is.

use super::ParseError;
use crate::abi::Address;
use crate::packet::{OutOfBounds, Packet};

/// Whether a packet is a fragment (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// A whole packet.
    Whole,
    /// The first fragment: it holds the ports.
    First,
    /// A later fragment: it holds payload only.
    Later,
}

/// Which end of a packet's journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it came from.
    Source,
    /// Where it goes.
    Destination,
}

/// Time to live of packets that the balancer itself sends (RFC 1700, as Linux does).
pub const TTL_DEFAULT: u8 = 64;

/// A network header's fields that need no further parsing.
#[derive(Clone, Copy, Debug)]
pub struct L3View {
    /// Who sent it.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Time to live or hop limit.
    pub ttl: u8,
}

/// What follows the network header.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Whether and which fragment this is.
    pub fragment: Fragment,
    /// Where the transport header starts.
    pub l4_offset: usize,
    /// Where the packet ends according to its length field, at most the end of the frame.
    pub end_offset: usize,
}

/// An address family. The datapath is generic over it from the network header on: one text, compiled
/// once for each family, so that neither pays for the other's width.
pub trait Family {
    /// The header without options or extensions.
    type Header;

    /// Bytes in that header.
    const HEADER_LEN: usize;

    /// Reads the header at `offset`, of which only the version is checked.
    ///
    /// # Errors
    /// [`ParseError`] where not even the addresses could be read.
    fn load<P: Packet>(packet: &P, offset: usize) -> Result<Self::Header, ParseError>;

    /// The fields that need no further parsing.
    fn view(header: &Self::Header) -> L3View;

    /// Finds what follows the header at `offset`.
    ///
    /// # Errors
    /// [`ParseError`] where lengths contradict each other or the frame.
    fn transport<P: Packet>(
        packet: &P,
        header: &Self::Header,
        offset: usize,
    ) -> Result<Transport, ParseError>;

    /// Whether the packet is one by which hosts on a link find each other, inside IP (RFC 4861): ARP is none.
    fn is_neighbour_discovery<P: Packet>(packet: &P, transport: &Transport) -> bool;

    /// Decrements the time to live of the header at `offset`, which must not be 0.
    ///
    /// # Errors
    /// [`OutOfBounds`]; nothing is written then.
    fn decrement_ttl<P: Packet>(packet: &mut P, offset: usize) -> Result<(), OutOfBounds>;

    /// Writes a new header at `offset` for the answer to a packet with these fields: `l4_len_bytes` of
    /// TCP from its destination to its source.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    fn write_reply<P: Packet>(
        packet: &mut P,
        offset: usize,
        request: &L3View,
        l4_len_bytes: u16,
    ) -> Result<(), OutOfBounds>;

    /// Replaces one address of the header at `offset` and keeps the header's own checksum right.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    fn replace_address<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        old: &Address,
        new: &Address,
    ) -> Result<(), OutOfBounds>;
}
