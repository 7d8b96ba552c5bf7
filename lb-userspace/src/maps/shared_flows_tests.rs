use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, FromRawFd};

use lb_common::abi::{Backend, EndpointKey, FlowChanges, FlowOriginSet, Service, flow_changes_len};
use lb_common::limits::{HALF_OPEN_TIMEOUT_S, PROBATION_PER_SET};

use super::super::flow_memory::FlowMaps;
use super::super::{Entry, Key, MapState, Write};
use super::*;
use crate::sync::flow::untold_s;
use crate::sync::replicate::table::SharedTable;

const SETS: u32 = 100;
const NOW_S: u32 = 5_000;
const KEY: [u64; HASH_KEY_WORDS] = [1, 2, 3, 4];
const SERVICE: u16 = 3;
const FIRST: u16 = 7;
const SECOND: u16 = 8;

/// A map's memory without a map.
fn memory(bytes: usize) -> File {
    // SAFETY: a name that ends with 0; the descriptor is this file's alone.
    let file = unsafe {
        let fd = libc::memfd_create(c"flows".as_ptr(), 0);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.set_len(bytes as u64).unwrap();
    file
}

/// A node: its table, and the marks that its packets make.
struct Node {
    shared: SharedFlows,
    changes: Vec<File>,
}

fn vip() -> EndpointKey {
    EndpointKey::new(IpAddr::from([203, 0, 113, 10]).into(), 80_u16.to_be(), 6)
}

fn service(generation: u16) -> Service {
    Service {
        id: SERVICE,
        generation,
        idle_timeout_s: 300,
        ..Service::zeroed()
    }
}

fn backend(host: u8, generation: u16) -> Backend {
    Backend {
        address: IpAddr::from([10, 0, 0, host]).into(),
        service_id: SERVICE,
        generation,
        ..Backend::zeroed()
    }
}

impl Node {
    /// With two backends, under these ids.
    fn new(first_id: u16, second_id: u16) -> Self {
        let sets = SETS as usize;
        let files: Vec<File> = [
            sets * size_of::<FlowSet>(),
            sets * size_of::<FlowOriginSet>(),
            size_of::<u64>(),
            flow_changes_len(SETS) as usize * size_of::<FlowChanges>(),
        ]
        .map(memory)
        .into();
        let maps = FlowMaps {
            flows: files[0].as_fd(),
            origins: files[1].as_fd(),
            suppressed: files[2].as_fd(),
            changes: files[3].as_fd(),
            set_count: SETS,
            service_count: 1,
        };
        let meanings = Meanings::default();
        let state = MapState {
            services: [(vip(), service(1))].into(),
            backends: [(first_id, backend(11, 1)), (second_id, backend(12, 1))].into(),
            ..MapState::default()
        };
        meanings.begin(&state);
        let flows = Arc::new(FlowMemory::map(&maps).unwrap());
        Self {
            shared: SharedFlows::new(flows, meanings, KEY),
            changes: files,
        }
    }

    fn mark(&self, set: u32) {
        use std::os::unix::fs::FileExt as _;
        self.changes[3].write_at(&[1], u64::from(set)).unwrap();
    }

    fn changed(&mut self, count_max: usize) -> Vec<u32> {
        let mut sets = Vec::new();
        self.shared.take_changed(&mut sets, count_max);
        sets
    }

    /// What is told of the flow at a place.
    fn told(&self, place: FlowPlace, now_s: u32) -> Option<SharedFlow> {
        let entry = self.shared.read_set(place.set()).entries[place.entry()];
        self.shared.share(place, &entry, now_s)
    }
}

/// The flow of a client's port to a backend.
fn flow(port: u16, backend_id: u16, state: FlowState, remaining_s: i32) -> SharedFlow {
    let client: Address = IpAddr::from([198, 51, 100, 7]).into();
    let tuple = FlowTuple {
        source: client,
        destination: vip().address,
        ports: u32::from(port.to_be()) << 16 | u32::from(vip().port_be),
    };
    SharedFlow {
        flow_hash: hash::flow(&tuple, &KEY),
        client: client.octets(),
        sequence: 1_000,
        remaining_s,
        client_port_be: port.to_be(),
        port_be: vip().port_be,
        service_id: SERVICE,
        backend_id,
        state: state.0,
        generation: 1,
        ..SharedFlow::zeroed()
    }
}

fn open(port: u16, backend_id: u16) -> SharedFlow {
    flow(port, backend_id, FlowState::OPEN, 290)
}

#[track_caller]
fn place_of(merged: Merged) -> FlowPlace {
    match merged {
        Merged::Agreed { place, .. } | Merged::Later { place } => place,
        other => panic!("{other:?}"),
    }
}

/// What the thread of the links owns.
const fn is_for_another_thread<T: SharedTable>() {}
const _: () = is_for_another_thread::<SharedFlows>();

#[test]
fn marks_are_taken_once_in_turn_and_no_more_than_wanted() {
    let mut node = Node::new(FIRST, SECOND);
    for set in [0, 3, 63, 64, 99] {
        node.mark(set);
    }
    assert_eq!(node.changed(2), [0, 3]);
    // The next ones come first, even if the former ones have changed again.
    node.mark(0);
    assert_eq!(node.changed(2), [63, 64]);
    assert_eq!(node.changed(9), [99, 0]);
    assert_eq!(node.changed(9), [0; 0]);
}

#[test]
fn a_flow_comes_back_as_it_was_told() {
    let mut node = Node::new(FIRST, SECOND);
    let told = open(40_001, FIRST);
    let merged = node.shared.merge(&told, NOW_S);
    let place = place_of(merged);
    assert_eq!(node.told(place, NOW_S), Some(told));
    assert!(matches!(merged, Merged::Agreed { entry, .. }
        if entry == node.shared.read_set(place.set()).entries[place.entry()]));
    assert_eq!(node.shared.merge(&told, NOW_S), merged, "once more");
    assert_eq!(node.changed(9), [0; 0], "a merge marks nothing");
    assert!(node.told(place, NOW_S + 290).is_some());
}

/// The node that had its last packets may have died before it told of them, so it is told on for a while.
#[test]
fn a_flow_that_seems_to_have_expired_takes_free_room_alone_and_is_told_while_it_may_live() {
    let mut node = Node::new(FIRST, SECOND);
    let untold_s = untold_s(300) as i32;
    let silent = flow(40_001, FIRST, FlowState::OPEN, -untold_s);
    let place = place_of(node.shared.merge(&silent, NOW_S));
    assert_eq!(node.told(place, NOW_S), Some(silent));
    assert_eq!(node.told(place, NOW_S + 1), None);
    for over in [
        flow(40_002, FIRST, FlowState::OPEN, -untold_s - 1),
        flow(40_003, FIRST, FlowState::FIN, -1),
        flow(40_004, FIRST, FlowState::HALF_OPEN, -1),
        flow(40_005, FIRST, FlowState::OPEN, i32::MIN),
    ] {
        assert_eq!(node.shared.merge(&over, NOW_S), Merged::Refused);
    }
    // Flows that live need their places more.
    let mut full = Node::new(FIRST, SECOND);
    for port in 1..20_000 {
        full.shared.merge(&open(port, FIRST), NOW_S);
    }
    for port in 20_000..21_000 {
        let silent = flow(port, FIRST, FlowState::OPEN, -1);
        assert_eq!(full.shared.merge(&silent, NOW_S), Merged::NoRoom);
    }
}

#[test]
fn the_later_record_stays_whoever_tells_it() {
    let mut node = Node::new(FIRST, SECOND);
    let former = open(40_001, FIRST);
    let place = place_of(node.shared.merge(&former, NOW_S));
    // Its port was used again 5 s later, and went elsewhere.
    let again = SharedFlow {
        sequence: 70_000,
        ..flow(
            40_001,
            SECOND,
            FlowState::HALF_OPEN,
            HALF_OPEN_TIMEOUT_S as i32 - 5,
        )
    };
    assert_eq!(place_of(node.shared.merge(&again, NOW_S)), place);
    assert_eq!(node.told(place, NOW_S), Some(again));
    let late = node.shared.merge(&former, NOW_S);
    assert_eq!(late, Merged::Later { place });
    assert_eq!(node.told(place, NOW_S), Some(again));
}

#[test]
fn a_second_is_no_difference() {
    let mut node = Node::new(FIRST, SECOND);
    let told = open(40_001, FIRST);
    let merged = node.shared.merge(&told, NOW_S);
    for remaining_s in [289, 291] {
        let other_clock = SharedFlow {
            remaining_s,
            ..told
        };
        assert_eq!(node.shared.merge(&other_clock, NOW_S), merged);
    }
    let refreshed = SharedFlow {
        remaining_s: 299,
        ..told
    };
    let place = place_of(node.shared.merge(&refreshed, NOW_S));
    assert_eq!(node.told(place, NOW_S), Some(refreshed));
}

#[test]
fn both_nodes_keep_the_same_of_two_records() {
    let records = [
        open(40_001, FIRST),
        open(40_001, SECOND),
        flow(40_001, SECOND, FlowState::FIN, 50),
        SharedFlow {
            sequence: 9_999,
            ..flow(40_001, FIRST, FlowState::HALF_OPEN, 53)
        },
    ];
    for one in &records {
        for other in &records {
            let kept = [[one, other], [other, one]].map(|order| {
                let mut node = Node::new(FIRST, SECOND);
                node.shared.merge(order[0], NOW_S);
                let place = place_of(node.shared.merge(order[1], NOW_S));
                node.told(place, NOW_S)
            });
            assert_eq!(kept[0], kept[1], "{one:?} {other:?}");
        }
    }
}

#[test]
fn what_means_nothing_here_is_refused() {
    let mut node = Node::new(FIRST, SECOND);
    let right = open(40_001, FIRST);
    for wrong in [
        SharedFlow {
            service_id: 9,
            ..right
        },
        SharedFlow {
            backend_id: 99,
            ..right
        },
        SharedFlow {
            generation: 2,
            ..right
        },
        SharedFlow {
            remaining_s: -(untold_s(300) as i32) - 1,
            ..right
        },
        SharedFlow {
            flow_hash: right.flow_hash ^ 1,
            ..right
        },
        SharedFlow {
            client_port_be: 1,
            ..right
        },
    ] {
        assert_eq!(
            node.shared.merge(&wrong, NOW_S),
            Merged::Refused,
            "{wrong:?}"
        );
    }
    let longer = SharedFlow {
        remaining_s: i32::MAX,
        ..right
    };
    let place = place_of(node.shared.merge(&longer, NOW_S));
    let told = node.told(place, NOW_S).unwrap();
    assert_eq!(told.remaining_s, 300, "no longer than this node keeps it");
}

#[test]
fn the_dictionary_changes_with_what_it_says() {
    let mut node = Node::new(FIRST, SECOND);
    let place = place_of(node.shared.merge(&open(40_001, FIRST), NOW_S));
    let before = node.shared.dictionary();
    assert_eq!(before.services[&SERVICE].port, 80);
    assert_eq!(
        before.backends[&FIRST].address,
        "10.0.0.11:80".parse().unwrap()
    );
    let resolved = Backend {
        is_resolved: 1,
        ..backend(11, 1)
    };
    let meanings = node.shared.meanings.clone();
    meanings.follow(&Write::Put(Entry::Backend(FIRST, resolved)));
    node.changed(1);
    assert!(Arc::ptr_eq(&before, &node.shared.dictionary()));
    meanings.follow(&Write::Put(Entry::Backend(FIRST, backend(13, 2))));
    node.changed(1);
    let after = node.shared.dictionary();
    assert_eq!(
        after.backends[&FIRST].address,
        "10.0.0.13:80".parse().unwrap()
    );
    assert_eq!(node.told(place, NOW_S), None, "the id is another backend's");
    meanings.follow(&Write::Delete(Key::Service(vip())));
    node.changed(1);
    assert!(node.shared.dictionary().backends.is_empty());
}

/// Flows whose first set is `set`.
fn of_set(set: u32) -> impl Iterator<Item = u16> {
    let first = move |port: &u16| {
        let hash = open(*port, FIRST).flow_hash;
        let fingerprint = flow::fingerprint(&service(1), hash);
        flow::sets(fingerprint, SETS) == (set, set) || flow::sets(fingerprint, SETS).0 == set
    };
    (1..u16::MAX).filter(first)
}

#[test]
fn the_other_nodes_flood_takes_no_more_than_probation() {
    let mut node = Node::new(FIRST, SECOND);
    for port in 1..20_000 {
        let half_open = flow(
            port,
            FIRST,
            FlowState::HALF_OPEN,
            HALF_OPEN_TIMEOUT_S as i32,
        );
        node.shared.merge(&half_open, NOW_S);
    }
    for set in 0..SETS {
        let entries = node.shared.read_set(set).entries;
        let taken = entries
            .iter()
            .filter(|entry| entry.fingerprint != 0)
            .count();
        assert!(taken <= PROBATION_PER_SET as usize, "set {set}: {taken}");
    }
    let late = flow(
        30_000,
        FIRST,
        FlowState::HALF_OPEN,
        HALF_OPEN_TIMEOUT_S as i32,
    );
    assert_eq!(node.shared.merge(&late, NOW_S), Merged::NoRoom);
    // Whoever is established has the other half, and then what nobody has answered for 3 s.
    for port in of_set(5).skip_while(|port| *port < 30_000).take(6) {
        let merged = node.shared.merge(&open(port, FIRST), NOW_S + 4);
        assert!(matches!(merged, Merged::Agreed { .. }), "{merged:?}");
    }
}

#[test]
fn a_set_full_of_established_flows_has_no_room() {
    let mut node = Node::new(FIRST, SECOND);
    let mut refused = 0;
    for port in 1..3_000 {
        let merged = node.shared.merge(&open(port, FIRST), NOW_S);
        refused += u32::from(merged == Merged::NoRoom);
    }
    let live = SETS as usize * FLOW_SET_ENTRIES;
    assert!(refused as usize >= 2_999 - live, "{refused}");
    // When they have expired, their places are free.
    let place = node.shared.merge(&open(60_000, SECOND), NOW_S + 400);
    assert!(matches!(place, Merged::Agreed { .. }));
}
