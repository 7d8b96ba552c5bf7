//! Wire formats: one file per protocol, with the header as it stands in the packet (fields of
//! natural width in network byte order, suffix `_be`) and its parse function.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l3;
pub mod l4;
pub mod tcp;
pub mod udp;

use crate::packet::OutOfBounds;

/// Why a header could not be parsed.
// As wide as an offset: in a `Result` it takes the place of one, and of a narrower word in that place
// the compiler would make an offset in two parts, of which older verifiers (Linux 6.1) lose the bounds.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The frame ends inside the header.
    Truncated,
    /// A length or version field contradicts the protocol or the frame.
    Malformed,
    /// More IPv6 extension headers than are walked.
    ExtensionHeaders,
}

impl From<OutOfBounds> for ParseError {
    #[inline(always)]
    fn from(_: OutOfBounds) -> Self {
        Self::Truncated
    }
}
