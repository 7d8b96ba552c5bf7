//! The only place with map calls.
//!
//! Map values are shared with other CPUs and with the control plane. They are copied out field by
//! field where they are used; an entry that is overwritten at that moment may be read half old,
//! half new, which costs at most a misdirected packet.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use lb_common::abi::{
    Address, Backend, EndpointKey, FlowEntry, FlowKey, NatReply, Neighbour, NeighbourKey,
    NeighbourWanted, Route, Service, Slot,
};
use lb_common::drop_reason::{DropReason, PASSED_INDEX};
use lb_common::kernel::{FlowHandle, Kernel};
use lb_common::limits::{HASH_KEY_WORDS, RING_BLOCK_SHIFT, RING_BLOCK_SLOTS};

use super::globals::HASH_KEY;
use super::maps::{
    BACKEND_STATS, BACKENDS, COUNTERS, EVENTS, FLOWS, NAT_REPLIES, NEIGHBOURS, RINGS, ROUNDS,
    ROUTES, SERVICES, VIPS,
};

const NS_PER_S: u64 = 1_000_000_000;

/// The kernel around the XDP program.
pub(super) struct BpfKernel;

/// An entry of the flow table, in place.
pub(super) struct FlowPointer(*mut FlowEntry);

impl FlowHandle for FlowPointer {
    #[inline(always)]
    fn load(&self) -> FlowEntry {
        // SAFETY: a map value lives until the program returns (RCU), and is aligned to 8 bytes.
        unsafe { self.0.read() }
    }

    #[inline(always)]
    fn store(&self, entry: FlowEntry) {
        // SAFETY: as in `load`; racing writers write aligned words whole.
        unsafe { self.0.write(entry) }
    }
}

/// Adds to this CPU's own counter; nothing interrupts XDP on a CPU by XDP, so that no atomic is
/// needed.
#[inline(always)]
fn add(counter: *mut u64, amount: u64) {
    // SAFETY: a per-CPU map value that the look-up returned, non-null and aligned.
    unsafe { counter.write(counter.read() + amount) }
}

#[inline(always)]
fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        add(counter, 1);
    }
}

impl Kernel for BpfKernel {
    type Flow = FlowPointer;

    #[inline(always)]
    fn now_s(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_ktime_get_coarse_ns() } / NS_PER_S) as u32
    }

    #[inline(always)]
    fn hash_key(&self) -> [u64; HASH_KEY_WORDS] {
        HASH_KEY.load()
    }

    #[inline(always)]
    fn service(&self, key: &EndpointKey) -> Option<&Service> {
        // SAFETY: hash elements are replaced, not overwritten, and live until the program returns.
        unsafe { SERVICES.get(key) }
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        VIPS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn ring_slot(&self, block: u32, slot: u32) -> Option<Slot> {
        let block = RINGS.get_ptr(block + (slot >> RING_BLOCK_SHIFT))?;
        let slot = slot as usize & (RING_BLOCK_SLOTS - 1);
        // SAFETY: the mask keeps the index inside the block; a slot is one aligned word.
        Some(Slot(unsafe { (*block)[slot] }))
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&Backend> {
        BACKENDS.get(u32::from(id))
    }

    #[inline(always)]
    fn next_round(&self, service_id: u16) -> u64 {
        let Some(round) = ROUNDS.get_ptr_mut(u32::from(service_id)) else {
            return 0;
        };
        // LLVM 22 lowers a relaxed addition to an instruction without BPF_FETCH even where its
        // result is used, and hands back the addend; the stronger ordering fetches.
        // SAFETY: an aligned map value; the addition is atomic across CPUs.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(round, 1) }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowPointer> {
        FLOWS.get_ptr_mut(key).map(FlowPointer)
    }

    #[inline(always)]
    fn record_flow(&self, key: &FlowKey, entry: &FlowEntry) {
        // An LRU map refuses only when every element is being evicted by other CPUs right now; the
        // flow's next packet is recorded then.
        let _ = FLOWS.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn nat_reply(&self, key: &EndpointKey) -> Option<&NatReply> {
        // SAFETY: hash elements are replaced, not overwritten, and live until the program returns.
        unsafe { NAT_REPLIES.get(key) }
    }

    #[inline(always)]
    fn route(&self, destination: &Address) -> Option<&Route> {
        ROUTES.get(&Key::new(128, destination.octets()))
    }

    #[inline(always)]
    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour> {
        // SAFETY: hash elements are replaced, not overwritten, and live until the program returns.
        unsafe { NEIGHBOURS.get(key) }
    }

    #[inline(always)]
    fn want_neighbour(&self, event: &NeighbourWanted) {
        // A full buffer means that the control plane has plenty to resolve already.
        let _ = EVENTS.output_untyped::<NeighbourWanted>(event, 0);
    }

    #[inline(always)]
    fn count_forwarded(&self, backend_id: u16, bytes: u64, is_new_flow: bool) {
        let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(backend_id)) else {
            return;
        };
        // SAFETY: field addresses of a live per-CPU map value.
        unsafe {
            add(&raw mut (*stats).packets, 1);
            add(&raw mut (*stats).bytes, bytes);
            if is_new_flow {
                add(&raw mut (*stats).new_flows, 1);
            }
        }
    }

    #[inline(always)]
    fn count_reply(&self, backend_id: u16, bytes: u64) {
        let Some(stats) = BACKEND_STATS.get_ptr_mut(u32::from(backend_id)) else {
            return;
        };
        // SAFETY: field addresses of a live per-CPU map value.
        unsafe {
            add(&raw mut (*stats).reply_packets, 1);
            add(&raw mut (*stats).reply_bytes, bytes);
        }
    }

    #[inline(always)]
    fn count_passed(&self) {
        count(PASSED_INDEX);
    }

    #[inline(always)]
    fn count_drop(&self, service_id: u16, reason: DropReason) {
        count(reason.index(service_id));
    }
}
