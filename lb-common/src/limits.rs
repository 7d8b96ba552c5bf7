//! Every bound, with its unit and its reason.

/// Slots in one block of ring storage. A ring takes one block or several adjacent ones; a block
/// is one element of the `RINGS` map, 64 KiB, so that the packet path reaches any slot with one
/// array look-up. Unit: slots.
pub const RING_BLOCK_SLOTS: usize = 16_384;

/// `log2` of [`RING_BLOCK_SLOTS`].
pub const RING_BLOCK_SHIFT: u32 = RING_BLOCK_SLOTS.trailing_zeros();

/// Slots of a Maglev ring unless the service says otherwise: the largest prime that fits one block
/// with room to spare, and good for 163 backends at 1 % imbalance (M > 100 · N, Maglev paper, section 5.3).
/// Unit: slots.
pub const RING_SLOTS_DEFAULT: u32 = 16_381;

/// Slots of a large Maglev ring: the largest prime below four blocks; good for 655 backends at 1 %.
/// Unit: slots.
pub const RING_SLOTS_LARGE: u32 = 65_521;

/// The most slots that a ring may have, Maglev or round robin. Unit: slots.
pub const RING_SLOTS_MAX: u32 = 65_536;

/// Highest backend id: a ring slot keeps the previous backend in 15 bits. Id 0 means none.
pub const BACKEND_ID_MAX: u16 = 0x7fff;

/// Highest service id. Id 0 means "no service": counters of packets that belong to none.
pub const SERVICE_ID_MAX: u16 = 0x3fff;

/// Smallest weight of a backend. Weight 0 is refused: taking a backend out of service is `drain`
/// or `remove`, and says so.
pub const WEIGHT_MIN: u32 = 1;

/// Largest weight of a backend. 1000 : 1 still leaves the lightest of a few backends whole slots
/// in a default ring.
pub const WEIGHT_MAX: u32 = 1000;

/// Weight of a backend that names none.
pub const WEIGHT_DEFAULT: u32 = 100;

/// Backends of one service. More would leave fewer than 32 slots each in the largest ring.
pub const SERVICE_BACKENDS_MAX: usize = 2_048;

/// Bytes in the name of a node, service or backend.
pub const NAME_LEN_MAX: usize = 63;

/// VLAN tags skipped before L3. Two covers 802.1ad (QinQ); each level unrolls once more in the
/// verifier. Unit: tags.
pub const VLAN_DEPTH_MAX: usize = 2;

/// IPv6 extension headers walked before the datapath gives up (RFC 8200 section 4.1 lists six in
/// the recommended order, of which a steered packet can carry four). Unit: headers.
pub const IPV6_EXTENSIONS_MAX: usize = 4;

/// Bytes of IPv6 extension headers walked; a bound that the verifier can carry through the loop.
pub const IPV6_EXTENSIONS_BYTES_MAX: usize = 512;

/// Counters kept for each service: one for each [`crate::drop_reason::DropReason`], and
/// [`crate::drop_reason::PASSED_INDEX`].
pub const COUNTERS_PER_SERVICE: u32 = 32;

/// Words (64 bits) of the secret that keys the flow hash: 256 bits.
pub const HASH_KEY_WORDS: usize = 4;

/// Default capacity of `SERVICES` and of everything indexed by a service id. Unit: entries.
pub const SERVICES_DEFAULT: u32 = 1_024;

/// Default capacity of `BACKENDS`. Unit: entries (64 B each, and 40 B per CPU for its counters).
pub const BACKENDS_DEFAULT: u32 = 4_096;

/// Default capacity of `RINGS`. Unit: blocks of 64 KiB. One for each of [`SERVICES_DEFAULT`]; and a
/// ring is written into spare blocks before the old ones are free again, so a few are left over,
/// for several rings or for a large one.
pub const RING_BLOCKS_DEFAULT: u32 = SERVICES_DEFAULT + 16;

/// Default capacity of the flow table. Unit: flows (16 B each), a multiple of 8. A table with room
/// for twice the live flows loses none of them worth mention; a much larger one costs memory only.
pub const FLOWS_DEFAULT: u32 = 262_144;

/// Capacity of `ROUTES`. The control plane mirrors the node's own routes, not a full BGP table:
/// a trie of 100,000 prefixes would cost ~470 ns a look-up. Room for as many VIPs as there may be
/// services, and thousands of routes. Unit: entries.
pub const ROUTES_MAX: u32 = 4_096;

/// Capacity of `NEIGHBOURS`: on-link hosts to which NAT replies go. Unit: entries.
pub const NEIGHBOURS_MAX: u32 = 16_384;

/// Bytes of the `EVENTS` ring buffer.
pub const EVENTS_BYTES: u32 = 64 * 1024;

/// Idle time-out of a TCP flow in the flow table unless the service says otherwise. Unit: seconds.
pub const IDLE_TIMEOUT_TCP_S: u32 = 900;

/// Idle time-out of a UDP flow in the flow table unless the service says otherwise. Unit: seconds.
pub const IDLE_TIMEOUT_UDP_S: u32 = 60;

/// How long a flow stays in probation: as long as Linux repeats a SYN by default (6 times, 63 s).
/// Unit: seconds.
pub const HALF_OPEN_TIMEOUT_S: u32 = 63;

/// No SYN can take the place of a half-open flow younger than this: a client that lives answers
/// sooner, and repeats its SYN after 1 s (RFC 6298, section 2.1). Unit: seconds.
pub const HALF_OPEN_PROTECTED_S: u32 = 3;

/// Entries of a flow set that flows in probation may take. The other half is out of a SYN flood's
/// reach. Unit: entries.
pub const PROBATION_PER_SET: u32 = 4;

/// Entries of a flow set that learned flows may take before a second packet has confirmed them.
/// Unit: entries.
pub const LEARNED_PER_SET: u32 = 4;

/// A flow is learned only if its set then has no more live entries than this: ¾ of them. What is left
/// is for new flows. Unit: entries.
pub const LEARNING_FILL_MAX: u32 = 6;

/// How long a flow is kept after its client's FIN, from its last packet on: the other half of an
/// orderly end takes no longer (Linux waits as long in FIN-WAIT-2). Unit: seconds.
pub const FIN_LINGER_S: u32 = 60;

/// How long a flow is kept after a RST. The client's next segment, should the RST not have been its
/// own, brings it back. Unit: seconds.
pub const RST_LINGER_S: u32 = 10;

/// A packet that is no SYN matches a half-open flow only if its sequence number is this close behind
/// the SYN's: more than a first flight of data (RFC 6928: 10 segments). Unit: bytes.
pub const HANDSHAKE_WINDOW_BYTES: u32 = 1 << 16;

/// How long slots are armed before a planned change takes effect, so that a handshake that began
/// before completes where it began: its SYN is repeated after 1 s. Unit: milliseconds.
pub const PREPARE_MS: u64 = 1_500;

/// SYNs that are remembered, to recognise one that is sent once more: a power of two. A place is
/// overwritten by the next SYN that falls on it, so at 50,000 SYNs a second about half of those that are
/// repeated after a second (RFC 6298, section 2) are recognised.
pub const RECENT_SYNS: u32 = 1 << 16;

/// How long a segment of a flow that is not on record waits for a peer to tell of it: over the first repetition
/// (200 ms on Linux, TCP_RTO_MIN), and not over the second. Unit: milliseconds.
pub const RECORD_PATIENCE_MS: u32 = 500;

/// How long it is remembered that a flow has waited: over the third repetition, and not until its port is used
/// again. Unit: milliseconds.
pub const PENDING_MEMORY_MS: u32 = 10_000;

/// Flows that are remembered to have waited: a power of two.
pub const PENDING_FLOWS: u32 = 1 << 14;
