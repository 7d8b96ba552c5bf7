//! The frame under the datapath's hands.

use bytemuck::Pod;

/// An access beyond the end of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds;

/// A frame that starts with its Ethernet header. All offsets are in bytes from there.
pub trait Packet {
    /// Bytes in the frame, without the frame check sequence.
    fn len_bytes(&self) -> usize;
    /// The interface that the frame came in on.
    fn ingress_ifindex(&self) -> u32;
    /// Returns `value`. The verifier must not know where it came from: it walks what follows once for
    /// each offset that it can tell apart, and once for all that it cannot.
    fn opaque(&self, value: usize) -> usize;
    /// Copies a `T` out of the frame.
    ///
    /// # Errors
    /// [`OutOfBounds`] if the frame ends before `offset + size_of::<T>()`.
    fn load<T: Pod>(&self, offset: usize) -> Result<T, OutOfBounds>;
    /// Cuts the frame off after `len_bytes`, which is at most its length.
    ///
    /// # Errors
    /// [`OutOfBounds`] if the frame is shorter, or the driver cannot do it; the frame is as before then.
    fn truncate(&mut self, len_bytes: usize) -> Result<(), OutOfBounds>;
    /// Copies a `T` into the frame.
    ///
    /// # Errors
    /// [`OutOfBounds`] as with [`Packet::load`]; nothing is written then.
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), OutOfBounds>;
}
