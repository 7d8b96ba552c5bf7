//! What the datapath needs of a network header, whichever family it is.

use super::ParseError;
use crate::abi::Address;

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

/// A network header, parsed.
#[derive(Clone, Copy, Debug)]
pub struct L3View {
    /// Who sent it.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The transport, and where its header starts; or why it was not found. The addresses are
    /// valid in either case.
    pub transport: Result<Transport, ParseError>,
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
