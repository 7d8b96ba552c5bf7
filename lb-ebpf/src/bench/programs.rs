use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::bench::{FRAME_WORDS, SEND_STAMP_INTERVAL, SendLog, Settings};

/// How frames are made, written before each run.
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// The number of the next flow, or the state of the random generator that picks it.
#[btf_map]
static STATE: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The program under test, at index 0.
#[btf_map]
static UNDER_TEST: ProgramArray<1> = ProgramArray::new();

/// Frames sent by `generate_and_send`, and when.
#[btf_map]
static SENT: PerCpuArray<SendLog, 1> = PerCpuArray::new();

/// Frames seen by `count_and_drop`.
#[btf_map]
static SEEN: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Writes a fresh frame over what the last run left, and runs the program under test on it.
#[xdp]
fn generate(ctx: XdpContext) -> u32 {
    if write_frame(&ctx).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: the context is the program's own; on success the call does not return.
    unsafe { UNDER_TEST.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// Writes a fresh frame and sends it out of an interface: a packet generator, run with live frames.
#[xdp]
fn generate_and_send(ctx: XdpContext) -> u32 {
    let sent = (write_frame(&ctx), SETTINGS.get(0), note_sent());
    let (Some(()), Some(settings), Some(())) = sent else {
        return XDP_ABORTED;
    };
    // SAFETY: a helper without pointer arguments.
    unsafe { bpf_redirect(settings.ifindex, 0) as u32 }
}

/// The least that a program that answers on the same interface can do.
#[xdp]
fn transmit(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// The least that a program can do.
#[xdp]
fn drop_all(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// The far end of the wire.
#[xdp]
fn count_and_drop(_ctx: XdpContext) -> u32 {
    if let Some(seen) = SEEN.get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *seen += 1 };
    }
    XDP_DROP
}

/// Copies the template over the frame and puts the flow's address and port into it.
#[inline(always)]
fn write_frame(ctx: &XdpContext) -> Option<()> {
    let settings = SETTINGS.get(0)?;
    let flow = next_flow(settings)?;
    let start = ctx.data();
    if start + FRAME_WORDS * 8 > ctx.data_end() {
        return None;
    }
    let frame = start as *mut u64;
    for word in 0..FRAME_WORDS {
        // SAFETY: the whole template is in bounds by the comparison above.
        unsafe { frame.add(word).write(settings.template[word]) };
    }
    // A thousand ports to an address, as behind a large NAT.
    let (host, port) = ((flow >> 10) as u32, 1024 + (flow & 1023) as u16);
    let (address_offset, port_offset) = if settings.is_ipv6 != 0 {
        (34, 54)
    } else {
        (26, 34)
    };
    // SAFETY: both offsets lie within the template, which is in bounds.
    unsafe {
        let address = (start + address_offset) as *mut u32;
        address.write((u32::from_be(address.read()) + host).to_be());
        ((start + port_offset) as *mut u16).write(port.to_be());
    }
    Some(())
}

/// Counts a frame, and looks at the clock now and then.
#[inline(always)]
fn note_sent() -> Option<()> {
    let log = SENT.get_ptr_mut(0)?;
    // SAFETY: this CPU's own log; the helper takes no pointers.
    unsafe {
        (*log).frame_count += 1;
        if (*log).first_ns == 0 {
            (*log).first_ns = bpf_ktime_get_ns();
        }
        if (*log).frame_count % SEND_STAMP_INTERVAL == 0 {
            (*log).last_ns = bpf_ktime_get_ns();
        }
    }
    Some(())
}

/// A flow number below the count, a power of two: random, or one after the other.
#[inline(always)]
fn next_flow(settings: &Settings) -> Option<u64> {
    let state = STATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's own state.
    let mut value = unsafe { *state };
    if settings.is_sequential != 0 {
        value = value.wrapping_add(1);
    } else {
        // Marsaglia's xorshift64; the upper half is the better one.
        value |= u64::from(value == 0);
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
    }
    // SAFETY: as above.
    unsafe { *state = value };
    let shift = if settings.is_sequential != 0 { 0 } else { 32 };
    Some((value >> shift) & (u64::from(settings.flow_count) - 1))
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
