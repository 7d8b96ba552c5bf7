use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{EndpointKey, Slot};
use proptest::prelude::*;

use super::*;
use crate::desired::ids::Ids;
use crate::desired::tests::all_eligible;
use crate::desired::{Desired, Network, desired};
use crate::maps::fake::FakeStore;
use crate::maps::{Entry, Key, MapStore, StoreError, Write};
use crate::model::{
    Backend, ForwardMode, Interface, Limits, Model, OnStop, Scheduler, Service, XdpMode,
};

/// A prime, small enough to check every slot after every write.
const RING_SLOTS: u32 = 101;

/// A prime that takes two blocks.
const RING_SLOTS_TWO_BLOCKS: u32 = 16_411;

const CAPACITIES: Capacities = Capacities {
    services: 8,
    backends: 32,
    ring_blocks: 8,
};

fn service(number: u8, scheduler: Scheduler, forward: ForwardMode, hosts: &[(u8, u32)]) -> Service {
    let backend = |(host, weight): &(u8, u32)| Backend {
        weight: *weight,
        ..Backend::new(
            format!("b{host}"),
            IpAddr::V4(Ipv4Addr::new(10, 0, number, *host)),
            80,
        )
    };
    Service {
        scheduler,
        forward,
        idle_timeout_s: 60,
        ring_slots: RING_SLOTS,
        backends: hosts
            .iter()
            .map(backend)
            .map(|backend| (backend.name.clone(), backend))
            .collect(),
        ..Service::new(
            format!("s{number}"),
            IpAddr::V4(Ipv4Addr::new(203, 0, 113, number / 2)),
            80 + u16::from(number),
        )
    }
}

fn web(hosts: &[(u8, u32)]) -> Service {
    service(1, Scheduler::Maglev, ForwardMode::Dsr, hosts)
}

fn model(services: impl IntoIterator<Item = Service>) -> Model {
    Model {
        node: "lb1".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            xdp: XdpMode::Auto,
        }],
        manage_vips: false,
        metrics: Default::default(),
        hooks: Default::default(),
        cluster: None,
        vrrp: Default::default(),
        on_stop: OnStop::Keep,
        limits: Limits {
            services: CAPACITIES.services,
            backends: CAPACITIES.backends,
            ring_blocks: CAPACITIES.ring_blocks,
            flows: 16,
        },
        services: services
            .into_iter()
            .map(|service| (service.name.clone(), service))
            .collect(),
    }
}

/// A control plane over a fake store.
#[derive(Clone)]
struct Node {
    ids: Ids,
    actual: Actual,
    store: FakeStore,
    capacities: Capacities,
}

impl Node {
    fn new(capacities: Capacities) -> Self {
        Self {
            ids: Ids::new(32, 64),
            actual: Actual::default(),
            store: FakeStore::default(),
            capacities,
        }
    }

    fn with(model: &Model) -> Self {
        let mut node = Self::new(CAPACITIES);
        node.reconcile(model).unwrap();
        node
    }

    fn desired(&mut self, model: &Model) -> Desired {
        self.ids.assign(model).unwrap();
        desired(
            model,
            &self.ids,
            &Network::default(),
            &all_eligible(model, &self.ids),
        )
    }

    fn plan(&mut self, model: &Model) -> Result<Plan, MapFull> {
        let desired = self.desired(model);
        plan(&desired, &self.actual, &self.capacities)
    }

    fn reconcile(&mut self, model: &Model) -> Result<(), StoreError> {
        let plan = self.plan(model).unwrap();
        self.store.write_log.clear();
        apply(&plan, &mut self.actual, &mut self.store).map(drop)
    }

    /// As after a restart of the daemon: what is in force is read from the maps.
    fn restart(&mut self) {
        self.actual = Actual {
            maps: self.store.read().unwrap(),
            rings: BTreeMap::new(),
        };
    }

    /// What packets see: entries without the place of their rings, and the rings.
    fn meaning(&self) -> (MapState, BTreeMap<EndpointKey, Vec<u32>>) {
        let mut maps = self.store.read().unwrap();
        let rings = maps
            .services
            .iter()
            .map(|(key, service)| (*key, self.store.ring_of(service)))
            .collect();
        for service in maps.services.values_mut() {
            service.ring_block = 0;
        }
        (maps, rings)
    }

    fn position(&self, is_it: impl Fn(&Write) -> bool) -> usize {
        let found = self.store.write_log.iter().position(is_it);
        found.unwrap_or_else(|| panic!("not in {:#?}", self.store.write_log))
    }
}

#[test]
fn puts_go_from_the_backend_to_the_vip() {
    let node = Node::with(&model([service(
        1,
        Scheduler::Maglev,
        ForwardMode::Nat,
        &[(1, 1)],
    )]));
    let order = [
        node.position(|write| *write == Write::ZeroBackendStats(1)),
        node.position(|write| matches!(write, Write::Put(Entry::Backend(1, _)))),
        node.position(|write| matches!(write, Write::Put(Entry::NatReply(..)))),
        node.position(|write| matches!(write, Write::Ring { .. })),
        node.position(|write| *write == Write::ZeroServiceCounters(1)),
        node.position(|write| matches!(write, Write::Put(Entry::Service(..)))),
        node.position(|write| matches!(write, Write::Put(Entry::Vip(..)))),
    ];
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn deletes_go_the_other_way_and_wait_before_the_backends() {
    let mut node = Node::with(&model([service(
        1,
        Scheduler::Maglev,
        ForwardMode::Nat,
        &[(1, 1)],
    )]));
    node.reconcile(&model([])).unwrap();
    let order = [
        node.position(|write| matches!(write, Write::Delete(Key::Vip(_)))),
        node.position(|write| matches!(write, Write::Delete(Key::Service(_)))),
        node.position(|write| *write == Write::WaitForReaders),
        node.position(|write| matches!(write, Write::Delete(Key::NatReply(_)))),
        node.position(|write| matches!(write, Write::Delete(Key::Backend(1)))),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(node.store.read().unwrap(), MapState::default());
}

#[test]
fn nothing_to_do_writes_nothing() {
    let model = model([web(&[(1, 1), (2, 1)])]);
    let mut node = Node::with(&model);
    assert_eq!(node.plan(&model).unwrap().writes, []);
}

#[test]
fn a_backend_that_stays_keeps_its_counters_and_a_newcomer_starts_at_zero() {
    let mut node = Node::with(&model([web(&[(1, 1)])]));
    node.reconcile(&model([web(&[(1, 5), (2, 1)])])).unwrap();
    let zeroed: Vec<&Write> = node
        .store
        .write_log
        .iter()
        .filter(|write| {
            matches!(
                write,
                Write::ZeroBackendStats(_) | Write::ZeroServiceCounters(_)
            )
        })
        .collect();
    assert_eq!(zeroed, [&Write::ZeroBackendStats(2)]);
}

#[test]
fn the_last_backend_leaves_an_empty_ring() {
    let mut node = Node::with(&model([web(&[(1, 1)])]));
    node.reconcile(&model([web(&[])])).unwrap();
    let state = node.store.read().unwrap();
    let lengths: Vec<u32> = state
        .services
        .values()
        .map(|entry| entry.ring_len)
        .collect();
    assert_eq!(lengths, [0]);
    assert!(state.backends.is_empty());
    assert!(node.store.write_log.contains(&Write::WaitForReaders));
}

#[test]
fn with_one_spare_block_rings_take_turns() {
    let both = |weight| {
        model([
            web(&[(1, 1), (2, weight)]),
            service(
                2,
                Scheduler::Maglev,
                ForwardMode::Dsr,
                &[(1, 1), (2, weight)],
            ),
        ])
    };
    let mut node = Node::new(Capacities {
        ring_blocks: 3,
        ..CAPACITIES
    });
    node.reconcile(&both(1)).unwrap();
    node.reconcile(&both(2)).unwrap();
    let waits = node
        .store
        .write_log
        .iter()
        .filter(|write| **write == Write::WaitForReaders);
    assert_eq!(waits.count(), 2);
}

#[test]
fn a_ring_of_two_blocks_is_written_whole() {
    let mut large = web(&[(1, 1), (2, 1)]);
    large.ring_slots = RING_SLOTS_TWO_BLOCKS;
    let node = Node::with(&model([large]));
    let (_, rings) = node.meaning();
    let ring = rings.values().next().unwrap();
    assert_eq!(ring.len(), RING_SLOTS_TWO_BLOCKS as usize);
    assert!(ring.iter().all(|slot| *slot != Slot::EMPTY.0));
}

#[test]
fn a_full_map_is_named_before_anything_is_written() {
    let many: Vec<(u8, u32)> = (1..=33).map(|host| (host, 1)).collect();
    let mut node = Node::with(&model([web(&[(1, 1)])]));
    let full = node.plan(&model([web(&many)])).unwrap_err();
    assert_eq!(
        full.to_string(),
        "map BACKENDS: 1 of 32 entries used, need 32 more; raise `limits.backends`"
    );
    let services = (1..=9).map(|number| service(number, Scheduler::Maglev, ForwardMode::Dsr, &[]));
    let full = node.plan(&model(services)).unwrap_err();
    assert_eq!((full.map, full.used, full.needed), ("SERVICES", 1, 8));
}

/// Services with a ring of one block each.
fn services(numbers: std::ops::RangeInclusive<u8>) -> impl Iterator<Item = Service> {
    numbers.map(|number| service(number, Scheduler::Maglev, ForwardMode::Dsr, &[(1, 1)]))
}

#[test]
fn the_last_block_is_kept_for_changes() {
    let mut node = Node::new(Capacities {
        ring_blocks: 3,
        ..CAPACITIES
    });
    node.reconcile(&model(services(1..=2))).unwrap();
    let full = node.plan(&model(services(1..=3))).unwrap_err();
    assert_eq!(
        full.to_string(),
        "map RINGS: 2 of 3 entries used, need 2 more; raise `limits.ring_blocks`"
    );
    // Everything else goes on.
    node.reconcile(&model([web(&[(1, 1), (2, 1)])])).unwrap();
    node.reconcile(&model(services(1..=2))).unwrap();
    node.reconcile(&model(services(2..=2))).unwrap();
}

#[test]
fn a_storage_that_is_full_already_is_no_dead_end() {
    let mut node = Node::new(CAPACITIES);
    node.reconcile(&model(services(1..=2))).unwrap();
    node.capacities.ring_blocks = 2;
    node.reconcile(&model(services(1..=1))).unwrap();
    node.reconcile(&model([web(&[(1, 1), (2, 1)])])).unwrap();
}

#[test]
fn small_rings_leave_room_for_the_large_one_however_often_all_change() {
    let all = |weight| {
        let mut large = service(
            7,
            Scheduler::Maglev,
            ForwardMode::Dsr,
            &[(1, 1), (2, weight)],
        );
        large.ring_slots = RING_SLOTS_TWO_BLOCKS;
        let small = (1..=3).map(move |number| {
            let hosts = [(1, 1), (2, weight)];
            service(number, Scheduler::Maglev, ForwardMode::Dsr, &hosts)
        });
        model(small.chain([large]))
    };
    // Five blocks in use, two for the large ring's successor, one for those of the small ones.
    let mut node = Node::new(CAPACITIES);
    for weight in 1..20 {
        node.reconcile(&all(weight)).unwrap();
    }
}

fn any_service(number: u8) -> impl Strategy<Value = Option<Service>> {
    let hosts = prop::collection::btree_map(1..5_u8, 1..4_u32, 0..4);
    let scheduler = prop_oneof![Just(Scheduler::Maglev), Just(Scheduler::RoundRobin)];
    let forward = prop_oneof![Just(ForwardMode::Dsr), Just(ForwardMode::Nat)];
    let service = (scheduler, forward, hosts).prop_map(move |(scheduler, forward, hosts)| {
        let hosts: Vec<(u8, u32)> = hosts.into_iter().collect();
        service(number, scheduler, forward, &hosts)
    });
    prop::option::weighted(0.8, service)
}

fn any_model() -> impl Strategy<Value = Model> {
    (any_service(1), any_service(2), any_service(3))
        .prop_map(|(a, b, c)| model([a, b, c].into_iter().flatten()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Kill the apply at each of its writes; go on in the same process, or after a restart. The
    /// end is the same as without the accident, and the store has checked every step on the way.
    #[test]
    fn a_killed_apply_can_be_continued(before in any_model(), after in any_model()) {
        let start = Node::with(&before);
        let mut undisturbed = start.clone();
        undisturbed.reconcile(&after).unwrap();
        for writes in 0..undisturbed.store.write_log.len() {
            for restarts in [false, true] {
                let mut node = start.clone();
                node.store.fail_after(writes);
                let killed = node.reconcile(&after);
                node.store.heal();
                if restarts {
                    node.restart();
                }
                node.reconcile(&after).unwrap();
                prop_assert_eq!(node.meaning(), undisturbed.meaning(), "{:?}", killed);
            }
        }
    }

    /// A change that fails half-way and is taken back leaves what was there before.
    #[test]
    fn a_failed_change_can_be_taken_back(before in any_model(), after in any_model()) {
        let start = Node::with(&before);
        let mut undisturbed = start.clone();
        undisturbed.reconcile(&after).unwrap();
        for writes in 0..undisturbed.store.write_log.len() {
            let mut node = start.clone();
            node.store.fail_after(writes);
            let _killed_or_only_waiting = node.reconcile(&after);
            node.store.heal();
            node.reconcile(&before).unwrap();
            prop_assert_eq!(node.meaning(), start.meaning());
        }
    }

    /// Whatever came before, the maps end up as the model says.
    #[test]
    fn the_way_does_not_matter(models in prop::collection::vec(any_model(), 1..5)) {
        let mut node = Node::new(CAPACITIES);
        for model in &models {
            node.reconcile(model).unwrap();
            prop_assert_eq!(node.plan(model).unwrap().writes, vec![]);
        }
        let (maps, _) = node.meaning();
        let last = models.last().unwrap();
        prop_assert_eq!(maps.services.len(), last.services.len());
        let backends: usize = last.services.values().map(|one| one.backends.len()).sum();
        prop_assert_eq!(maps.backends.len(), backends);
    }
}
