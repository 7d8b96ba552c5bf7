//! TCP segments from clients, as frames of headers only.

use bytemuck::Pod;
use lb_common::packet::{OutOfBounds, Packet};

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a connection.
    Syn,
    /// Carries data or acknowledges some.
    Segment,
    /// The client has no more to send.
    Fin,
    /// The client breaks off.
    Rst,
}

impl Kind {
    const fn flags(self) -> u8 {
        match self {
            Self::Syn => 0x02,
            Self::Segment => 0x10,
            Self::Fin => 0x11,
            Self::Rst => 0x04,
        }
    }
}

/// Who sends it: an IPv4 address and a port, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source {
    pub(crate) address: u32,
    pub(crate) port: u16,
}

/// The VIP, host byte order.
pub(crate) const VIP: u32 = 0xcb00_710a;
/// The service's port.
pub(crate) const PORT: u16 = 443;

const FRAME_BYTES: usize = 54;

/// A frame in memory.
#[derive(Clone, Debug)]
pub(crate) struct SimPacket {
    bytes: [u8; FRAME_BYTES],
}

impl SimPacket {
    pub(crate) fn new(source: Source, kind: Kind, sequence: u32) -> Self {
        let mut bytes = [0; FRAME_BYTES];
        bytes[0] = 2;
        bytes[6] = 2;
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        bytes[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
        bytes[26..30].copy_from_slice(&source.address.to_be_bytes());
        bytes[30..34].copy_from_slice(&VIP.to_be_bytes());
        bytes[34..36].copy_from_slice(&source.port.to_be_bytes());
        bytes[36..38].copy_from_slice(&PORT.to_be_bytes());
        bytes[38..42].copy_from_slice(&sequence.to_be_bytes());
        bytes[46..48].copy_from_slice(&[0x50, kind.flags()]);
        Self { bytes }
    }
}

impl Packet for SimPacket {
    fn len_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn ingress_ifindex(&self) -> u32 {
        1
    }

    fn opaque(&self, value: usize) -> usize {
        value
    }

    fn load<T: Pod>(&self, offset: usize) -> Result<T, OutOfBounds> {
        let bytes = self.bytes.get(offset..offset + size_of::<T>());
        Ok(bytemuck::pod_read_unaligned(bytes.ok_or(OutOfBounds)?))
    }

    fn truncate(&mut self, _len_bytes: usize) -> Result<(), OutOfBounds> {
        Err(OutOfBounds)
    }

    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), OutOfBounds> {
        let bytes = self.bytes.get_mut(offset..offset + size_of::<T>());
        bytes
            .ok_or(OutOfBounds)?
            .copy_from_slice(bytemuck::bytes_of(&value));
        Ok(())
    }
}
