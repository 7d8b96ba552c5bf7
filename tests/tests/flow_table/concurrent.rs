//! Several CPUs at one flow table: real threads, few sets, and as many packets as are said, so that
//! every test ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytemuck::Zeroable as _;
use lb_common::abi::{Address, Backend, FlowOrigin, Service, Slot};
use lb_common::datapath::consult::{Consultation, consult};
use lb_common::datapath::flow;
use lb_common::hash;
use lb_common::kernel::Signal;
use lb_common::wire::tcp::{PROTOCOL_TCP, TcpFlags};

use crate::shared::SharedKernel;

pub(crate) const SYN: TcpFlags = TcpFlags(0x02);
pub(crate) const ACK: TcpFlags = TcpFlags(0x10);
const FIN: TcpFlags = TcpFlags(0x11);

const SERVICE_ID: u16 = 1;
/// Flows have pairs of backends, by which a record is known to be theirs.
const PAIRS: u16 = 97;

fn service() -> Service {
    Service {
        id: SERVICE_ID,
        generation: 1,
        ring_len: 1,
        // So that flows expire while others are recorded.
        idle_timeout_s: 5,
        ..Service::zeroed()
    }
}

/// The kernel lives as long as the process: see [`SharedKernel`].
pub(crate) fn kernel(set_count: usize) -> &'static SharedKernel {
    let backend = Backend {
        service_id: SERVICE_ID,
        generation: 1,
        is_up: 1,
        ..Backend::zeroed()
    };
    let mut backends = vec![backend; 1 + 2 * usize::from(PAIRS)];
    backends[0] = Backend::zeroed();
    Box::leak(Box::new(SharedKernel::new(set_count, backends)))
}

/// A flow by its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow(pub(crate) u64);

impl Flow {
    fn hash(self) -> u64 {
        hash::mix(self.0)
    }

    fn of(fingerprint: u64) -> Self {
        Self(hash::unmix(flow::flow_hash(&service(), fingerprint)))
    }

    /// Its backend if it is new, and no other pair's.
    pub(crate) fn current(self) -> u16 {
        1 + 2 * (self.0 % u64::from(PAIRS)) as u16
    }

    /// Its backend if it is not on record.
    fn previous(self) -> u16 {
        self.current() + 1
    }

    pub(crate) fn is_its(self, backend_id: u16) -> bool {
        backend_id == self.current() || backend_id == self.previous()
    }

    /// Where a packet of it goes.
    pub(crate) fn send(self, kernel: &'static SharedKernel, flags: TcpFlags) -> u16 {
        let packet = Consultation {
            flow_hash: self.hash(),
            service: service(),
            slot: Slot::in_transition(self.current(), self.previous()),
            origin: FlowOrigin {
                client: Address::UNSPECIFIED,
                sequence: (self.hash() >> 32) as u32,
                ..FlowOrigin::zeroed()
            },
            flags,
            protocol: PROTOCOL_TCP,
            signal: Signal::None,
        };
        // The lower half of what it answers is a backend's id.
        consult(&kernel, &packet) as u16
    }
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Sends packets of any flows in any order. Returns how many went to `current`.
fn send_at_random(kernel: &'static SharedKernel, seed: u64, packet_count: u32) -> u32 {
    /// Three times what four sets hold.
    const FLOWS: u64 = 96;
    let mut random = Random(seed);
    let mut to_current = 0;
    for number in 0..packet_count {
        let bits = random.next();
        let flow = Flow(bits % FLOWS);
        let flags = [SYN, SYN, ACK, ACK, ACK, FIN][(bits >> 32) as usize % 6];
        let backend_id = flow.send(kernel, flags);
        assert!(
            flow.is_its(backend_id),
            "{flow:?}: sent to {backend_id}, which is another flow's"
        );
        to_current += u32::from(backend_id == flow.current());
        if number % 256 == 255 {
            kernel.tick();
        }
    }
    to_current
}

/// Flows come, go, expire and take each other's entries on three threads, while a fourth one reads: at
/// no moment is a record found under another flow's fingerprint.
#[test]
fn a_record_is_always_its_own_flows() {
    const PACKETS: u32 = 300_000;
    let kernel = kernel(4);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers = [1, 2, 3].map(|seed: u64| {
            scope.spawn(move || send_at_random(kernel, seed << 40 | 0x5bd1_e995, PACKETS))
        });
        let reader = scope.spawn(|| {
            let mut seen_count = 0;
            while !is_over.load(Ordering::Relaxed) {
                seen_count += check_records(kernel);
            }
            seen_count
        });
        let ends = writers.map(|writer| writer.join());
        // Before any of their panics ends this thread, and the reader would read on.
        is_over.store(true, Ordering::Relaxed);
        let to_current = ends.map(|end| end.expect("a record was mixed up"));
        let seen_count = reader.join().expect("a record was mixed up");
        assert!(seen_count > 0, "the reader found nothing to check");
        let share = |count: u32| count > PACKETS / 10 && count < PACKETS - PACKETS / 10;
        assert!(to_current.into_iter().all(share), "{to_current:?}");
    });
    check_records(kernel);
    assert_eq!(
        kernel.busy_count(),
        0,
        "an entry was claimed and not filled"
    );
}

/// Returns how many records there were to check.
pub(crate) fn check_records(kernel: &SharedKernel) -> usize {
    let records = kernel.records();
    for (fingerprint, record) in &records {
        let flow = Flow::of(*fingerprint);
        assert!(
            flow.is_its(record.backend_id()),
            "{flow:?} is on record with {record:?}"
        );
    }
    records.len()
}
