//! The only place with packet pointers.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use bytemuck::Pod;
use lb_common::packet::{OutOfBounds, Packet};

use super::opaque::opaque;

/// A frame in the driver's memory. Start and end are read once, and again after what moves them.
pub(super) struct XdpPacket {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
    ingress_ifindex: u32,
}

impl XdpPacket {
    #[inline(always)]
    pub(super) fn new(ctx: &XdpContext) -> Self {
        Self {
            ctx: ctx.ctx,
            start: ctx.data(),
            end: ctx.data_end(),
            ingress_ifindex: ctx.ingress_ifindex() as u32,
        }
    }

    /// A pointer to a `T` at `offset`, which the comparison right before has proved to be in
    /// bounds, to the verifier as well as to the reader.
    #[inline(always)]
    fn pointer<T>(&self, offset: usize) -> Result<*mut T, OutOfBounds> {
        let pointer = self.start + offset;
        if pointer + size_of::<T>() > unrelated(self.end) {
            return Err(OutOfBounds);
        }
        Ok(pointer as *mut T)
    }
}

/// Returns `value`, of which the compiler then knows nothing. It would else conclude from one
/// bounds check that a later one is needless and remove it; but the verifier knows the bounds of a
/// pointer with a variable offset from a comparison of that very pointer only.
#[inline(always)]
fn unrelated(value: usize) -> usize {
    let mut value = value;
    // SAFETY: a move of a register to itself. (Not nothing: the kernel refuses line information of
    // two lines at one instruction.)
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn len_bytes(&self) -> usize {
        unrelated(self.end - self.start)
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }

    #[inline(always)]
    fn opaque(&self, value: usize) -> usize {
        opaque(value as u64) as usize
    }

    #[inline(always)]
    fn truncate(&mut self, len_bytes: usize) -> Result<(), OutOfBounds> {
        let surplus = self.len_bytes().wrapping_sub(len_bytes) as i32;
        // SAFETY: the context of this run of the program. All pointers into the packet are invalid
        // afterwards, and none is kept.
        let refusal = unsafe { bpf_xdp_adjust_tail(self.ctx, -surplus) };
        let ctx = XdpContext::new(self.ctx);
        self.start = ctx.data();
        self.end = ctx.data_end();
        if refusal == 0 {
            Ok(())
        } else {
            Err(OutOfBounds)
        }
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Result<T, OutOfBounds> {
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds by the comparison above; T is plain old data, so that any bytes are a
        // T; the target reads unaligned words whole (feature allows-misaligned-mem-access).
        Ok(unsafe { pointer.read_unaligned() })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), OutOfBounds> {
        let pointer = self.pointer::<T>(offset)?;
        // SAFETY: in bounds by the comparison above, and the frame is ours alone until the program
        // returns.
        unsafe { pointer.write_unaligned(value) };
        Ok(())
    }
}
