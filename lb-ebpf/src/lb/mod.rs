mod globals;
mod kernel;
mod maps;
mod opaque;
mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::datapath::{self, ResetWanted, Verdict};

use kernel::BpfKernel;
use packet::XdpPacket;

/// The datapath's entry point.
#[xdp]
pub(crate) fn lb_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let verdict = match datapath::decide(&mut packet, &BpfKernel) {
        Ok(verdict) => verdict,
        Err(ResetWanted { service_id }) => return reset(&ctx, service_id),
    };
    match verdict {
        Verdict::Pass => XDP_PASS,
        Verdict::Transmit => XDP_TX,
        Verdict::Redirect(ifindex) => redirect(ifindex),
        Verdict::Drop(reason) => {
            // Compiled in, and dead code to the verifier unless the log level is raised at load.
            debug!(&ctx, "drop: reason {}", reason as u32);
            XDP_DROP
        }
    }
}

/// A function of its own in BPF's sense too: on the main path's stack there is no room for it.
#[inline(never)]
fn reset(ctx: &XdpContext, service_id: u16) -> u32 {
    let mut packet = XdpPacket::new(ctx);
    match datapath::answer_reset(&mut packet, &BpfKernel, service_id) {
        Verdict::Transmit => XDP_TX,
        _ => XDP_DROP,
    }
}

/// Sends the packet out of another interface.
#[inline(always)]
fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper without pointer arguments. In XDP it only notes the target; flags must be 0.
    let action = unsafe { bpf_redirect(ifindex, 0) };
    debug_assert!(action as u32 == XDP_REDIRECT);
    action as u32
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}

/// The kernel offers most helpers to programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
