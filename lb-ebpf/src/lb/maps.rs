//! The maps. Capacities are defaults; the loader sets the configured ones.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lb_common::abi::{
    self, Address, Backend, BackendSignals, BackendStats, EndpointKey, FLOW_SET_ENTRIES,
    FlowChanges, FlowOriginSet, FlowSet, Instance, NatReply, Neighbour, NeighbourKey, RingBlock,
    Route, Service, ServiceLine, Vip,
};
use lb_common::datapath::consult::Consultation;
use lb_common::limits::{
    self, BACKENDS_DEFAULT, COUNTERS_PER_SERVICE, EVENTS_BYTES, FLOWS_DEFAULT, NEIGHBOURS_MAX,
    RING_BLOCKS_DEFAULT, ROUTES_MAX, SERVICES_DEFAULT,
};

const SERVICES_MAX: usize = SERVICES_DEFAULT as usize;
const BACKENDS_MAX: usize = BACKENDS_DEFAULT as usize;
const FLOW_SETS: usize = FLOWS_DEFAULT as usize / FLOW_SET_ENTRIES;
const COUNTERS_MAX: usize = (SERVICES_DEFAULT * COUNTERS_PER_SERVICE) as usize;

#[btf_map]
pub(super) static SERVICES: HashMap<EndpointKey, Service, SERVICES_MAX> = HashMap::new();
#[btf_map]
pub(super) static SERVICE_LINES: Array<
    ServiceLine,
    { abi::SERVICE_LINES },
    { BPF_F_MMAPABLE as usize },
> = Array::new();
#[btf_map]
pub(super) static VIPS: HashMap<Address, Vip, SERVICES_MAX> = HashMap::new();
#[btf_map]
pub(super) static RINGS: Array<
    RingBlock,
    { RING_BLOCKS_DEFAULT as usize },
    { BPF_F_MMAPABLE as usize },
> = Array::new();
#[btf_map]
pub(super) static BACKENDS: Array<Backend, BACKENDS_MAX> = Array::new();
#[btf_map]
pub(super) static BACKEND_STATS: PerCpuArray<BackendStats, BACKENDS_MAX> = PerCpuArray::new();
#[btf_map]
pub(super) static BACKEND_SIGNALS: PerCpuArray<BackendSignals, BACKENDS_MAX> = PerCpuArray::new();
#[btf_map]
pub(super) static RECENT_SYNS: Array<u32, { limits::RECENT_SYNS as usize }> = Array::new();
/// [`lb_common::datapath::pending::Pending`]s.
#[btf_map]
pub(super) static PENDING_FLOWS: Array<u64, { limits::PENDING_FLOWS as usize }> = Array::new();
#[btf_map]
pub(super) static COUNTERS: PerCpuArray<u64, COUNTERS_MAX> = PerCpuArray::new();
#[btf_map]
pub(super) static ROUNDS: Array<u64, SERVICES_MAX> = Array::new();
#[btf_map]
pub(super) static FLOWS: Array<FlowSet, FLOW_SETS, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
pub(super) static FLOW_ORIGINS: Array<FlowOriginSet, FLOW_SETS, { BPF_F_MMAPABLE as usize }> =
    Array::new();
#[btf_map]
pub(super) static FLOW_CHANGES: Array<
    FlowChanges,
    { abi::flow_changes_len(FLOW_SETS as u32) as usize },
    { BPF_F_MMAPABLE as usize },
> = Array::new();
#[btf_map]
pub(super) static SUPPRESSED: Array<u64, SERVICES_MAX, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Not read here: it is for daemons to come.
#[btf_map]
static INSTANCE: Array<Instance, 1> = Array::new();
/// The argument of `consult_flow_table`.
#[btf_map]
pub(super) static CONSULTATION: PerCpuArray<Consultation, 1> = PerCpuArray::new();
/// A word for `opaque`.
#[btf_map]
pub(super) static SCRATCH: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
pub(super) static NAT_REPLIES: HashMap<EndpointKey, NatReply, BACKENDS_MAX> = HashMap::new();
#[btf_map]
pub(super) static ROUTES: LpmTrie<
    [u8; 16],
    Route,
    { ROUTES_MAX as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LpmTrie::new();
#[btf_map]
pub(super) static NEIGHBOURS: HashMap<NeighbourKey, Neighbour, { NEIGHBOURS_MAX as usize }> =
    HashMap::new();
#[btf_map]
pub(super) static EVENTS: RingBuf<(), { EVENTS_BYTES as usize }> = RingBuf::new();
