//! A flow table that several threads use at once, as CPUs do: words in atomics.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lb_common::abi::{
    Address, Backend, EndpointKey, FINGERPRINT_BUSY, FLOW_SET_ENTRIES, FlowOrigin, FlowRecord,
    NatReply, Neighbour, NeighbourKey, NeighbourWanted, Route, Service, Slot, Vip,
};
use lb_common::datapath::flow::FlowPlace;
use lb_common::drop_reason::DropReason;
use lb_common::kernel::{FlowSetHandle, Handshake, Kernel, Signal};
use lb_common::limits::HASH_KEY_WORDS;

/// What another CPU does, and before which of this thread's next accesses to an entry.
type Interruption = (u32, Box<dyn FnOnce()>);

thread_local! {
    static INTERRUPTION: RefCell<Option<Interruption>> = const { RefCell::new(None) };
}

/// Has something happen right before this thread's access number `access` to an entry, from 0 on.
pub(crate) fn interrupt(access: u32, other_cpu: impl FnOnce() + 'static) {
    INTERRUPTION.set(Some((access, Box::new(other_cpu))));
}

/// Calls off what has not happened; returns whether there was something.
pub(crate) fn call_off() -> bool {
    INTERRUPTION.take().is_some()
}

/// An access to an entry.
fn note_access() {
    match INTERRUPTION.take() {
        Some((0, other_cpu)) => other_cpu(),
        Some((access, other_cpu)) => INTERRUPTION.set(Some((access - 1, other_cpu))),
        None => (),
    }
}

/// An origin's words.
type OriginWords = [AtomicU32; size_of::<FlowOrigin>() / 4];

/// An entry's two words.
#[derive(Default)]
pub(crate) struct Entry {
    fingerprint: AtomicU64,
    record: AtomicU64,
}

/// What `consult` asks for, shared by all threads.
pub(crate) struct SharedKernel {
    /// By id, from 0 on.
    backends: Vec<Backend>,
    now_s: AtomicU32,
    sets: Vec<[Entry; FLOW_SET_ENTRIES]>,
    origins: Vec<OriginWords>,
}

impl SharedKernel {
    pub(crate) fn new(set_count: usize, backends: Vec<Backend>) -> Self {
        let entry_count = set_count * FLOW_SET_ENTRIES;
        Self {
            backends,
            now_s: AtomicU32::new(1_000),
            sets: (0..set_count).map(|_| Default::default()).collect(),
            origins: (0..entry_count).map(|_| Default::default()).collect(),
        }
    }

    /// Lets a second pass.
    pub(crate) fn tick(&self) {
        self.now_s.fetch_add(1, Ordering::Relaxed);
    }

    /// What stands in the table: fingerprints with their records. Entries that change during the look
    /// are left out, as whoever looks for a flow does.
    pub(crate) fn records(&self) -> Vec<(u64, FlowRecord)> {
        let steady = |entry: &Entry| {
            let fingerprint = entry.fingerprint.load(Ordering::SeqCst);
            let record = FlowRecord(entry.record.load(Ordering::SeqCst));
            let is_steady = entry.fingerprint.load(Ordering::SeqCst) == fingerprint;
            (is_steady && fingerprint > FINGERPRINT_BUSY).then_some((fingerprint, record))
        };
        self.sets.iter().flatten().filter_map(steady).collect()
    }

    /// Entries that are being written.
    pub(crate) fn busy_count(&self) -> usize {
        let is_busy = |entry: &&Entry| entry.fingerprint.load(Ordering::SeqCst) == FINGERPRINT_BUSY;
        self.sets.iter().flatten().filter(is_busy).count()
    }

    fn origin(&self, place: FlowPlace) -> &OriginWords {
        &self.origins[place.0 as usize]
    }
}

/// A set of the flow table, in place.
pub(crate) struct SharedSet(&'static [Entry; FLOW_SET_ENTRIES]);

impl SharedSet {
    fn entry(&self, entry: usize) -> &Entry {
        note_access();
        &self.0[entry]
    }
}

// The XDP program's accesses, one by one: plain loads and stores of whole words, and full barriers in
// `claim`, `fill` and `replace_record`. On x86 a plain access is at least as strong as acquire and
// release.
impl FlowSetHandle for SharedSet {
    fn fingerprint(&self, entry: usize) -> u64 {
        self.entry(entry).fingerprint.load(Ordering::Acquire)
    }

    fn record(&self, entry: usize) -> FlowRecord {
        FlowRecord(self.entry(entry).record.load(Ordering::Acquire))
    }

    fn claim(&self, entry: usize, old: u64) -> bool {
        exchange_if(&self.entry(entry).fingerprint, old, FINGERPRINT_BUSY)
    }

    fn fill(&self, entry: usize, fingerprint: u64, record: FlowRecord) {
        self.entry(entry).record.store(record.0, Ordering::Release);
        self.entry(entry)
            .fingerprint
            .swap(fingerprint, Ordering::SeqCst);
    }

    fn replace_record(&self, entry: usize, old: FlowRecord, new: FlowRecord) {
        exchange_if(&self.entry(entry).record, old.0, new.0);
    }
}

fn exchange_if(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
}

/// What a consultation of a Maglev TCP service has no use for.
const UNUSED: &str = "a consultation asks for the flow table and for backends only";

/// The set of a handle borrows from the kernel, which the trait has no lifetime for: the kernels of these
/// tests live until the end.
impl Kernel for &'static SharedKernel {
    type FlowSet = SharedSet;

    fn now_s(&self) -> u32 {
        self.now_s.load(Ordering::Relaxed)
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(usize::from(id))
    }

    fn opaque(&self, value: u64) -> u64 {
        value
    }

    fn flow_set_count(&self) -> u32 {
        self.sets.len() as u32
    }

    fn flow_set(&self, index: u32) -> Option<SharedSet> {
        self.sets.get(index as usize).map(SharedSet)
    }

    fn handshake(&self, place: FlowPlace) -> Option<Handshake> {
        let words = self.origin(place).each_ref();
        let origin: FlowOrigin = bytemuck::cast(words.map(|word| word.load(Ordering::Acquire)));
        Some(Handshake {
            sequence: origin.sequence,
            displaced_id: origin.displaced_id,
            displaced_generation: origin.displaced_generation,
        })
    }

    fn put_flow_origin(&self, place: FlowPlace, origin: &FlowOrigin) {
        let new: [u32; size_of::<FlowOrigin>() / 4] = bytemuck::cast(*origin);
        for (word, new) in self.origin(place).iter().zip(new) {
            word.store(new, Ordering::Release);
        }
    }

    fn put_displaced(&self, place: FlowPlace, backend_id: u16, generation: u16) {
        let word: u32 = bytemuck::cast([backend_id, generation]);
        let [.., displaced] = self.origin(place);
        displaced.store(word, Ordering::Release);
    }

    fn has_peers(&self) -> bool {
        false
    }

    fn note_change(&self, _set: u32) {}

    fn suppress(&self, _service_id: u16, _now_s: u32) {}

    fn is_suppressed(&self, _service_id: u16, _since_s: u32) -> bool {
        false
    }

    fn may_be_told(&self, _flow_hash: u64) -> bool {
        unreachable!("{UNUSED}")
    }

    fn hash_key(&self) -> [u64; HASH_KEY_WORDS] {
        unreachable!("{UNUSED}")
    }

    fn service(&self, _key: &EndpointKey) -> Option<Service> {
        unreachable!("{UNUSED}")
    }

    fn vip(&self, _address: &Address) -> Option<Vip> {
        unreachable!("{UNUSED}")
    }

    fn ring_slot(&self, _block: u32, _slot: u32) -> Option<Slot> {
        unreachable!("{UNUSED}")
    }

    fn next_round(&self, _service_id: u16) -> u64 {
        unreachable!("{UNUSED}")
    }

    fn nat_reply(&self, _key: &EndpointKey) -> Option<&NatReply> {
        unreachable!("{UNUSED}")
    }

    fn route(&self, _destination: &Address) -> Option<&Route> {
        unreachable!("{UNUSED}")
    }

    fn neighbour(&self, _key: &NeighbourKey) -> Option<&Neighbour> {
        unreachable!("{UNUSED}")
    }

    fn want_neighbour(&self, _event: &NeighbourWanted) {
        unreachable!("{UNUSED}")
    }

    fn count_forwarded(&self, _backend_id: u16, _bytes: u64, _is_new_flow: bool) {
        unreachable!("{UNUSED}")
    }

    fn count_reply(&self, _backend_id: u16, _bytes: u64) {
        unreachable!("{UNUSED}")
    }

    fn count_signal(&self, _backend_id: u16, _signal: Signal) {
        unreachable!("{UNUSED}")
    }

    fn remember_syn(&self, _place: u32, _mark: u32) -> bool {
        unreachable!("{UNUSED}")
    }

    fn count_passed(&self) {
        unreachable!("{UNUSED}")
    }

    fn count_drop(&self, _service_id: u16, _reason: DropReason) {
        unreachable!("{UNUSED}")
    }
}

const _: () = assert!(std::mem::offset_of!(FlowOrigin, displaced_id) == 24);
