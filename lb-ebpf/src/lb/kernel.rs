//! The only place with map calls.
//!
//! Map values are shared with other CPUs and with the control plane. Memory stays mapped until the
//! program returns, but an entry may be overwritten, and the kernel hands the memory of a replaced hash
//! element to the next update, while a packet still looks at it. So the datapath copies values
//! before it relies on them, and checks that they belong together (ids, generations, addresses); what
//! is left is a packet at that very moment with half an old and half a new Ethernet address.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use lb_common::abi::{
    Address, Backend, EndpointKey, FINGERPRINT_BUSY, FLOW_CHANGES_SETS, FLOW_SET_ENTRIES,
    FlowEntry, FlowOrigin, FlowRecord, FlowSet, NatReply, Neighbour, NeighbourKey, NeighbourWanted,
    Route, Service, ServiceLine, Slot, Vip,
};
use lb_common::datapath::consult::{self, Consultation};
use lb_common::datapath::flow::{self, FlowPlace};
use lb_common::datapath::pending::Pending;
use lb_common::drop_reason::{DropReason, PASSED_INDEX};
use lb_common::kernel::{FlowSetHandle, Handshake, Kernel, Signal};
use lb_common::limits::{self, HASH_KEY_WORDS, RING_BLOCK_SHIFT, RING_BLOCK_SLOTS};

use super::globals::{FLOW_SETS, HASH_KEY, NOTES_CHANGES};
use super::maps::{
    BACKEND_SIGNALS, BACKEND_STATS, BACKENDS, CONSULTATION, COUNTERS, EVENTS, FLOW_CHANGES,
    FLOW_ORIGINS, FLOWS, NAT_REPLIES, NEIGHBOURS, PENDING_FLOWS, RECENT_SYNS, RINGS, ROUNDS,
    ROUTES, SERVICE_LINES, SERVICES, SUPPRESSED, VIPS,
};
use super::opaque::opaque;

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// The kernel around the XDP program.
pub(super) struct BpfKernel;

/// A key of `ROUTES` with its address on an 8-byte boundary: the compiler writes it in two words,
/// and the verifier wants those aligned on the stack.
#[repr(C, align(8))]
struct HostRouteKey {
    lead: u32,
    prefix_len: u32,
    address: Address,
}

/// 64-bit words that a line's key and value fill together. The third holds the key's end and the
/// value's beginning.
const LINE_WORDS: usize = (size_of::<EndpointKey>() + size_of::<Service>()) / 8;
const _: () = assert!(size_of::<EndpointKey>() == 20 && size_of::<Service>() == 20);

/// The copy of a service in its line, if it stands there and was not written meanwhile.
#[inline(always)]
fn from_line(key: &EndpointKey) -> Option<Service> {
    let line = SERVICE_LINES.get_ptr(ServiceLine::index(key))?;
    let mut words = [0_u64; LINE_WORDS];
    // SAFETY: aligned words of a live map value, each read whole; key and value come first in it.
    let (before, after) = unsafe {
        let sequence = &raw const (*line).sequence;
        let before = sequence.read_volatile();
        for (number, word) in words.iter_mut().enumerate() {
            *word = line.cast::<u64>().add(number).read_volatile();
        }
        (before, sequence.read_volatile())
    };
    let [k0, k1, k2, k3, k4]: [u32; 5] = bytemuck::cast(*key);
    let [first, second, third, fourth, fifth] = words;
    let difference = first ^ join(k0, k1) | second ^ join(k2, k3) | u64::from(third as u32 ^ k4);
    let is_steady = before == after && before & 1 == 0;
    if difference != 0 || !is_steady {
        return None;
    }
    let halves = |word: u64| (word as u32, (word >> 32) as u32);
    let ((_, v0), (v1, v2), (v3, v4)) = (halves(third), halves(fourth), halves(fifth));
    Some(bytemuck::cast([v0, v1, v2, v3, v4]))
}

/// Two words of memory as one, on this little-endian target.
#[inline(always)]
const fn join(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// A set of the flow table, in place.
pub(super) struct FlowSetPointer(*mut FlowSet);

impl FlowSetPointer {
    /// The mask tells the verifier what every caller keeps: entries are below
    /// [`FLOW_SET_ENTRIES`].
    #[inline(always)]
    fn entry(&self, entry: usize) -> *mut FlowEntry {
        // SAFETY: the mask keeps the entry inside the set, which is a live map value.
        unsafe {
            (&raw mut (*self.0).entries)
                .cast::<FlowEntry>()
                .add(entry & (FLOW_SET_ENTRIES - 1))
        }
    }
}

// Volatile: other CPUs write these words. `claim` and the exchange in `fill` are full barriers.
impl FlowSetHandle for FlowSetPointer {
    #[inline(always)]
    fn fingerprint(&self, entry: usize) -> u64 {
        // SAFETY: an aligned word of a live map value.
        unsafe { (&raw const (*self.entry(entry)).fingerprint).read_volatile() }
    }

    #[inline(always)]
    fn record(&self, entry: usize) -> FlowRecord {
        // SAFETY: as in `fingerprint`.
        unsafe { (&raw const (*self.entry(entry)).record).read_volatile() }
    }

    #[inline(always)]
    fn claim(&self, entry: usize, old: u64) -> bool {
        // SAFETY: an aligned word of a live map value; the exchange is atomic across CPUs.
        unsafe {
            exchange_if(
                &raw mut (*self.entry(entry)).fingerprint,
                old,
                FINGERPRINT_BUSY,
            )
        }
    }

    #[inline(always)]
    fn fill(&self, entry: usize, fingerprint: u64, record: FlowRecord) {
        let entry = self.entry(entry);
        // SAFETY: as in `claim`.
        unsafe {
            (&raw mut (*entry).record).write_volatile(record);
            atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(
                &raw mut (*entry).fingerprint,
                fingerprint,
            );
        }
    }

    #[inline(always)]
    fn replace_record(&self, entry: usize, old: FlowRecord, new: FlowRecord) {
        // SAFETY: as in `claim`; a record is one word.
        unsafe { exchange_if((&raw mut (*self.entry(entry)).record).cast(), old.0, new.0) };
    }
}

/// Writes `new` if the word is still `old`; tells whether it was.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
unsafe fn exchange_if(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    let (_, is_ours) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
    };
    is_ours
}

/// `consult::consult` as a global function in BPF's sense: verified once. Its argument is in
/// `CONSULTATION`: on the stack, which all functions share, there is no room for it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn consult_flow_table() -> u64 {
    let Some(packet) = CONSULTATION.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a live map value of this CPU alone, written right before the call.
    consult::consult(&BpfKernel, unsafe { &*packet })
}

/// `consult::waits` as a global function, with the argument of [`consult_flow_table`]. Returns 1 if the packet waits.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn waits(place: u32, record: u64) -> u32 {
    let Some(packet) = CONSULTATION.get_ptr(0) else {
        return 0;
    };
    let ended = (place != NO_PLACE).then_some((FlowPlace(place), FlowRecord(record)));
    // SAFETY: as in `consult_flow_table`.
    u32::from(consult::waits(&BpfKernel, unsafe { &*packet }, ended))
}

/// The place of no flow.
const NO_PLACE: u32 = u32::MAX;

/// `flow::record` as a global function in BPF's sense: verified once, for any arguments.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn record_flow(fingerprint: u64, record: u64, now_s: u32) -> u32 {
    let place = flow::record(&BpfKernel, fingerprint, FlowRecord(record), now_s);
    place.map_or(NO_PLACE, |place| place.0)
}

/// A function of its own, as it is rarely called: on the main path's stack there is no room for its keys.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn count_signal(backend_id: u32, signal: u32) -> u32 {
    let Some(signals) = BACKEND_SIGNALS.get_ptr_mut(backend_id) else {
        return 0;
    };
    // SAFETY: field addresses of a live per-CPU map value.
    unsafe {
        if signal == Signal::RepeatedSyn as u32 {
            add(&raw mut (*signals).repeated_syns, 1);
        } else if signal == Signal::ClientReset as u32 {
            add(&raw mut (*signals).client_resets, 1);
        } else {
            add(&raw mut (*signals).backend_resets, 1);
        }
    }
    1
}

/// No VIP has this value.
const NO_VIP: u64 = u64::MAX;

/// As [`count_signal`]; the address in two words, as it stands in memory.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_up_vip(head: u64, tail: u64) -> u64 {
    let address: Address = bytemuck::cast([head, tail]);
    let Some(vip) = VIPS.get_ptr(address) else {
        return NO_VIP;
    };
    // SAFETY: an aligned word of a live map value. Volatile: the control plane writes it.
    u64::from(unsafe { vip.read_volatile() }.0)
}

/// As [`count_signal`]. Returns 1 if the mark stood there.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn remember_syn(place: u32, mark: u32) -> u32 {
    let Some(known) = RECENT_SYNS.get_ptr_mut(place & (limits::RECENT_SYNS - 1)) else {
        return 0;
    };
    // SAFETY: an aligned word of a live map value. Volatile: other CPUs write it, too.
    unsafe {
        let is_known = known.read_volatile() == mark;
        known.write_volatile(mark);
        u32::from(is_known)
    }
}

/// As [`count_signal`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn note_change(set: u32) -> u32 {
    let Some(changes) = FLOW_CHANGES.get_ptr_mut(set / FLOW_CHANGES_SETS as u32) else {
        return 0;
    };
    // SAFETY: the mask keeps the byte inside a live map value. Volatile, and a store of its own: it may not
    // be left out where the byte is 1 already, since its reader may be clearing it at this moment; then it
    // has yet to see what was written before.
    unsafe {
        let number = set as usize & (FLOW_CHANGES_SETS - 1);
        changes.cast::<u8>().add(number).write_volatile(1);
    }
    1
}

/// The origin of the flow at a place.
#[inline(always)]
fn origin(place: FlowPlace) -> Option<*mut FlowOrigin> {
    let set = FLOW_ORIGINS.get_ptr_mut(place.set())?;
    // SAFETY: an entry's number is below `FLOW_SET_ENTRIES`, and the set is a live map value.
    Some(unsafe {
        (&raw mut (*set).origins)
            .cast::<FlowOrigin>()
            .add(place.entry())
    })
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
    type FlowSet = FlowSetPointer;

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
    fn service(&self, key: &EndpointKey) -> Option<Service> {
        if let Some(service) = from_line(key) {
            return Some(service);
        }
        // SAFETY: a live map value; see the head of this file for what else may happen to it.
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn vip(&self, address: &Address) -> Option<Vip> {
        let [a, b, c, d] = address.0;
        let found = look_up_vip(join(a, b), join(c, d));
        (found != NO_VIP).then_some(Vip(found as u32))
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
    fn opaque(&self, value: u64) -> u64 {
        opaque(value)
    }

    #[inline(always)]
    fn flow_set_count(&self) -> u32 {
        FLOW_SETS.load()
    }

    #[inline(always)]
    fn flow_set(&self, index: u32) -> Option<FlowSetPointer> {
        FLOWS.get_ptr_mut(index).map(FlowSetPointer)
    }

    #[inline(always)]
    fn handshake(&self, place: FlowPlace) -> Option<Handshake> {
        let origin = origin(place)?;
        // SAFETY: aligned fields of a live map value. Another CPU may be writing them for another
        // flow that takes the place: then the packet is taken for a stranger's, which does no harm.
        unsafe {
            Some(Handshake {
                sequence: (&raw const (*origin).sequence).read_volatile(),
                displaced_id: (&raw const (*origin).displaced_id).read_volatile(),
                displaced_generation: (&raw const (*origin).displaced_generation).read_volatile(),
            })
        }
    }

    #[inline(always)]
    fn put_flow_origin(&self, place: FlowPlace, new: &FlowOrigin) {
        let Some(old) = origin(place) else {
            return;
        };
        // Word by word: a copy of the whole becomes a call to a byte loop.
        let words: &[u32; size_of::<FlowOrigin>() / 4] = bytemuck::cast_ref(new);
        for (number, word) in words.iter().enumerate() {
            // SAFETY: aligned words of a live map value.
            unsafe { old.cast::<u32>().add(number).write_volatile(*word) };
        }
    }

    #[inline(always)]
    fn put_displaced(&self, place: FlowPlace, backend_id: u16, generation: u16) {
        let Some(origin) = origin(place) else {
            return;
        };
        // SAFETY: aligned fields of a live map value.
        unsafe {
            (&raw mut (*origin).displaced_id).write_volatile(backend_id);
            (&raw mut (*origin).displaced_generation).write_volatile(generation);
        }
    }

    #[inline(always)]
    fn has_peers(&self) -> bool {
        NOTES_CHANGES.load() != 0
    }

    #[inline(always)]
    fn note_change(&self, set: u32) {
        if self.has_peers() {
            note_change(set);
        }
    }

    #[inline(always)]
    fn suppress(&self, service_id: u16, now_s: u32) {
        let Some(stamp) = SUPPRESSED.get_ptr_mut(u32::from(service_id)) else {
            return;
        };
        // SAFETY: an aligned word of a live map value. Written once a second, so that CPUs do not
        // fight over the line.
        unsafe {
            if stamp.read_volatile() != u64::from(now_s) {
                stamp.write_volatile(u64::from(now_s));
            }
        }
    }

    #[inline(always)]
    fn is_suppressed(&self, service_id: u16, since_s: u32) -> bool {
        let Some(stamp) = SUPPRESSED.get_ptr_mut(u32::from(service_id)) else {
            return false;
        };
        // SAFETY: an aligned word of a live map value.
        let stamp = unsafe { stamp.read_volatile() };
        stamp != 0 && stamp >= u64::from(since_s)
    }

    #[inline(always)]
    fn may_be_told(&self, flow_hash: u64) -> bool {
        let place = Pending::place(flow_hash, limits::PENDING_FLOWS);
        let Some(kept) = PENDING_FLOWS.get_ptr_mut(place) else {
            return false;
        };
        // SAFETY: a helper without arguments.
        let now_ms = (unsafe { bpf_ktime_get_coarse_ns() } / NS_PER_MS) as u32;
        let now = Pending::new(flow_hash, now_ms);
        // SAFETY: an aligned word of a live map value. Volatile: other CPUs write it, too.
        unsafe {
            let known = Pending(kept.read_volatile());
            let next = now.after(known);
            if next != known {
                kept.write_volatile(next.0);
            }
            now.waits(next)
        }
    }

    #[inline(always)]
    fn consult(&self, packet: Consultation) -> u64 {
        if let Some(place) = CONSULTATION.get_ptr_mut(0) {
            // SAFETY: this CPU's own map value; nothing interrupts XDP on a CPU by XDP.
            unsafe { place.write(packet) };
        }
        consult_flow_table()
    }

    #[inline(always)]
    fn waits(&self, _packet: &Consultation, ended: Option<(FlowPlace, FlowRecord)>) -> bool {
        if !self.has_peers() {
            return false;
        }
        let (place, record) = ended.unwrap_or((FlowPlace(NO_PLACE), FlowRecord(0)));
        waits(place.0, record.0) != 0
    }

    #[inline(always)]
    fn record_flow(&self, fingerprint: u64, record: FlowRecord, now_s: u32) -> Option<FlowPlace> {
        let place = record_flow(fingerprint, record.0, now_s);
        (place != NO_PLACE).then_some(FlowPlace(place))
    }

    #[inline(always)]
    fn nat_reply(&self, key: &EndpointKey) -> Option<&NatReply> {
        // SAFETY: a live map value; see the head of this file for what else may happen to it.
        unsafe { NAT_REPLIES.get(key) }
    }

    #[inline(always)]
    fn route(&self, destination: &Address) -> Option<&Route> {
        let key = HostRouteKey {
            lead: 0,
            prefix_len: 128,
            address: *destination,
        };
        // SAFETY: `prefix_len` and `address` have the layout of `Key<[u8; 16]>`, which is packed.
        let key = unsafe { &*(&raw const key.prefix_len).cast::<Key<[u8; 16]>>() };
        ROUTES.get(key)
    }

    #[inline(always)]
    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour> {
        // SAFETY: a live map value; see the head of this file for what else may happen to it.
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
    fn count_signal(&self, backend_id: u16, signal: Signal) {
        if signal != Signal::None {
            count_signal(u32::from(backend_id), signal as u32);
        }
    }

    #[inline(always)]
    fn remember_syn(&self, place: u32, mark: u32) -> bool {
        remember_syn(place, mark) != 0
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
