use std::collections::BTreeMap;

use lb_common::limits::PREPARE_MS;

use super::*;
use crate::model::check::Role;
use crate::model::{Fit, Interface, Limits, OnDown, OnStop, Scheduler, XdpMode};
use crate::transition::Phase;

/// A keeper with its world: a model with one service, `web`.
struct Bench {
    keeper: RingKeeper,
    ids: Ids,
    model: Model,
    now_ms: u64,
    steering: Steering,
    outlook: Outlook,
}

fn backend(host: u8) -> Backend {
    let address = IpAddr::from([10, 0, 0, host]);
    Backend::new(format!("web{host}"), address, 80)
}

fn service(hosts: &[u8]) -> Service {
    let named = |host: &u8| (format!("web{host}"), backend(*host));
    Service {
        idle_timeout_s: 60,
        backends: hosts.iter().map(named).collect(),
        ..Service::new("web", IpAddr::from([203, 0, 113, 10]), 80)
    }
}

impl Bench {
    fn new(service: Service) -> Self {
        let model = Model {
            node: "lb1".to_owned(),
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                xdp: XdpMode::Auto,
            }],
            manage_vips: true,
            metrics: Default::default(),
            hooks: Default::default(),
            cluster: None,
            vrrp: Default::default(),
            on_stop: OnStop::Keep,
            limits: Limits::default(),
            services: BTreeMap::from([("web".to_owned(), service)]),
        };
        let mut bench = Self {
            keeper: RingKeeper::default(),
            ids: Ids::new(8, 8),
            model,
            now_ms: 1_000,
            steering: Steering {
                ring: RingContent::empty(Scheduler::Maglev),
                new_flows: NewFlows::Schedule,
                held: BTreeSet::new(),
                leaving: BTreeSet::new(),
            },
            outlook: Outlook::default(),
        };
        bench.look();
        bench
    }

    fn service(&mut self) -> &mut Service {
        self.model.services.get_mut("web").unwrap()
    }

    fn backend(&mut self, host: u8) -> &mut Backend {
        self.service()
            .backends
            .get_mut(&format!("web{host}"))
            .unwrap()
    }

    fn id(&self, host: u8) -> u16 {
        let identity = ServiceIdentity::of(&self.model.services["web"]);
        let address = IpAddr::from([10, 0, 0, host]);
        self.ids.backend(&identity, address, 80).unwrap().id
    }

    /// Looks, and puts what comes out in force.
    fn look(&mut self) {
        self.ids.assign(&self.model).unwrap();
        let current = self.currents().into_iter().filter(|id| *id != 0).collect();
        let web = self.model.services["web"].clone();
        let observed = Observed {
            ids: &self.ids,
            now_ms: self.now_ms,
            suppressed_ms: &|_| None,
            in_force: &BTreeMap::from([(ServiceIdentity::of(&web), current)]),
        };
        let (mut steering, outlook) = self.keeper.look(&self.model, &self.model, &observed);
        (self.steering, self.outlook) = (steering.remove("web").unwrap(), outlook);
        if let Some(transition) = self.keeper.transition_mut(&web) {
            transition.in_force(transition.revision(), self.now_ms);
        }
    }

    fn look_after(&mut self, ms: u64) {
        self.now_ms += ms;
        self.look();
    }

    fn slots(&self) -> Vec<Slot> {
        self.steering
            .ring
            .build()
            .iter()
            .copied()
            .map(Slot)
            .collect()
    }

    fn currents(&self) -> BTreeSet<u16> {
        self.slots().iter().map(|slot| slot.current()).collect()
    }

    fn phases(&self) -> BTreeSet<String> {
        let phases = self.slots().into_iter().map(Phase::of);
        phases.map(|phase| format!("{phase:?}")).collect()
    }

    fn has_only(&self, hosts: &[u8]) -> bool {
        self.currents() == hosts.iter().map(|host| self.id(*host)).collect()
    }
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_drain_is_prepared_and_then_made() {
    let mut bench = Bench::new(service(&[1, 2, 3]));
    assert_eq!(bench.phases(), words(&["Settled"]));
    bench.backend(1).admin = AdminState::Drain;
    bench.look();
    assert_eq!(bench.phases(), words(&["Armed", "Settled"]));
    assert!(bench.has_only(&[1, 2, 3]), "handshakes under way complete");
    bench.look();
    assert_eq!(bench.outlook.due_ms, Some(bench.now_ms + PREPARE_MS));
    bench.look_after(PREPARE_MS);
    assert!(bench.has_only(&[2, 3]));
    let id = bench.id(1);
    assert!(bench.slots().iter().any(|slot| slot.previous() == id));
    assert!(bench.phases().contains("Moving"));
}

#[test]
fn a_death_and_a_strict_drain_are_not_prepared() {
    let mut bench = Bench::new(service(&[1, 2, 3]));
    bench.backend(1).health = Health::Down;
    bench.look();
    assert!(bench.has_only(&[2, 3]));
    let web = bench.model.services["web"].clone();
    bench.keeper.be_strict(&web, &web.backends["web2"]);
    bench.backend(2).admin = AdminState::Drain;
    bench.look();
    assert!(bench.has_only(&[3]));
}

#[test]
fn flows_that_are_to_be_ended_are_so_once_no_new_one_follows() {
    let mut web = service(&[1, 2]);
    web.policies.on_remove = OnRemove::Reset;
    let mut bench = Bench::new(web);
    bench.look();
    assert_eq!(bench.steering.held, BTreeSet::new());
    bench.backend(1).admin = AdminState::Maint;
    bench.look();
    assert!(bench.has_only(&[2]), "not prepared: the flows end anyway");
    assert_eq!(bench.steering.held, BTreeSet::from([bench.id(1)]));
    bench.look();
    assert_eq!(
        bench.steering.held,
        BTreeSet::new(),
        "the new ring is in force"
    );
}

#[test]
fn a_demoted_writer_loses_its_flows_and_the_next_one_gets_the_ring_at_once() {
    let mut db = service(&[1, 2]);
    db.role = Role::Writer;
    db.policies.on_remove = OnRemove::Reset;
    db.policies.on_all_down = OnAllDown::Reset;
    let mut bench = Bench::new(db);
    bench.backend(2).fit = Fit::Unfit;
    bench.look_after(10_000);
    bench.look_after(10_000);
    assert!(bench.has_only(&[1]));
    bench.backend(1).fit = Fit::Unfit;
    bench.look();
    assert_eq!(
        bench.steering.new_flows,
        NewFlows::Reset,
        "two primaries, or none"
    );
    assert_eq!(bench.steering.held, BTreeSet::new());
    bench.backend(2).fit = Fit::Fit;
    bench.look();
    assert!(bench.has_only(&[2]), "not prepared: the flows end anyway");
    assert_eq!(bench.steering.new_flows, NewFlows::Schedule);
}

#[test]
fn an_agents_part_of_the_weight_is_its_share_of_the_ring() {
    let mut bench = Bench::new(service(&[1, 2]));
    bench.backend(1).agent.weight_percent = Some(25);
    bench.look_after(10_000);
    bench.look_after(10_000);
    let slots = bench.slots();
    let id = bench.id(1);
    let count = slots.iter().filter(|slot| slot.current() == id).count();
    let share = count as f64 / slots.len() as f64;
    assert!((0.19..0.21).contains(&share), "{share}: a fifth");
    bench.backend(1).agent.weight_percent = Some(0);
    bench.look_after(10_000);
    bench.look_after(10_000);
    assert!(bench.has_only(&[2]), "a drain");
}

#[test]
fn with_nobody_eligible_the_last_ring_stays_and_the_policy_decides() {
    let mut bench = Bench::new(service(&[1, 2, 3]));
    bench.backend(3).health = Health::Down;
    bench.look();
    for host in [1, 2] {
        bench.backend(host).health = Health::Down;
    }
    bench.look_after(10_000);
    assert!(bench.has_only(&[1, 2]), "the last good one");
    assert_eq!(bench.steering.new_flows, NewFlows::Schedule);
    for (policy, expected) in [
        (OnAllDown::Reset, NewFlows::Reset),
        (OnAllDown::Drop, NewFlows::Drop),
    ] {
        bench.service().policies.on_all_down = policy;
        bench.look();
        assert_eq!(bench.steering.new_flows, expected);
        assert!(bench.has_only(&[1, 2]));
    }
    bench.backend(3).health = Health::Up;
    bench.look();
    assert_eq!(bench.steering.new_flows, NewFlows::Schedule);
    assert!(bench.has_only(&[3]));
}

#[test]
fn last_good_backends_that_are_down_still_get_the_new_flows() {
    let mut web = service(&[1, 2, 3]);
    web.policies.on_down = OnDown::Reset;
    let mut bench = Bench::new(web);
    for host in [1, 2, 3] {
        assert_eq!(bench.steering.held, BTreeSet::new());
        bench.backend(host).health = Health::Down;
        bench.look();
        bench.look();
    }
    let last = BTreeSet::from([bench.id(3)]);
    assert_eq!(bench.steering.held, last, "new flows go there");
    bench.backend(3).admin = AdminState::Maint;
    bench.look();
    assert_eq!(
        bench.steering.held,
        BTreeSet::new(),
        "the operator means it"
    );
    bench.backend(3).admin = AdminState::Ready;
    bench.service().policies.on_all_down = OnAllDown::Drop;
    bench.look();
    assert_eq!(bench.steering.held, BTreeSet::new(), "no flow goes there");
}

#[test]
fn a_ring_that_was_found_stays_while_nobody_is_eligible() {
    for scheduler in [Scheduler::Maglev, Scheduler::RoundRobin] {
        let mut web = service(&[1, 2, 3]);
        web.scheduler = scheduler;
        let mut bench = Bench::new(web);
        for host in [1, 2, 3] {
            bench.backend(host).health = Health::Down;
            bench.look();
        }
        let found = bench.slots();
        assert!(bench.has_only(&[3]));
        let web = bench.model.services["web"].clone();
        bench.keeper = RingKeeper::default();
        bench.keeper.recall(&web, &found);
        bench.keeper.adopt(&web, &found, bench.now_ms);
        bench.look_after(10_000);
        assert!(bench.has_only(&[3]), "{scheduler:?}");
    }
}

#[test]
fn a_service_that_loses_its_last_backend_takes_no_new_flow() {
    let mut bench = Bench::new(service(&[1]));
    let slot_count = bench.slots().len();
    bench.service().backends.clear();
    // It is leaving: the engine keeps its entry and its id.
    bench.look();
    bench.look_after(PREPARE_MS);
    assert_eq!(bench.steering.new_flows, NewFlows::Drop);
    assert_eq!(bench.currents(), BTreeSet::from([0]));
    assert_eq!(bench.slots().len(), slot_count);
}

#[test]
fn a_backend_that_comes_back_starts_slowly() {
    let mut web = service(&[1, 2]);
    web.policies.slow_start_s = 10;
    let mut bench = Bench::new(web);
    let share = |bench: &Bench| {
        let id = bench.id(1);
        bench
            .slots()
            .iter()
            .filter(|slot| slot.current() == id)
            .count()
    };
    let half = share(&bench);
    bench.backend(1).health = Health::Down;
    bench.look_after(10);
    assert_eq!(share(&bench), 0);
    bench.backend(1).health = Health::Up;
    bench.look_after(10);
    bench.look_after(PREPARE_MS);
    let first = share(&bench);
    assert!(first > 0 && first < half / 3, "{first} of {half}");
    let due_ms = bench.outlook.due_ms.expect("another step is to come");
    assert!(due_ms <= bench.now_ms + PREPARE_MS);
    for _ in 0..40 {
        bench.look_after(500);
    }
    assert!(share(&bench).abs_diff(half) < half / 10);
}

#[test]
fn a_ring_that_was_found_goes_on_where_it_was() {
    let mut bench = Bench::new(service(&[1, 2, 3]));
    bench.backend(1).admin = AdminState::Drain;
    bench.look();
    bench.look_after(PREPARE_MS);
    let found = bench.slots();
    let mut next = Bench::new(service(&[1, 2, 3]));
    next.backend(1).admin = AdminState::Drain;
    next.keeper = RingKeeper::default();
    let web = next.model.services["web"].clone();
    next.keeper.adopt(&web, &found, next.now_ms);
    next.look();
    assert_eq!(next.slots(), found);
}

#[test]
fn without_transitions_a_ring_is_built_at_once() {
    let mut web = service(&[1, 2]);
    web.scheduler = Scheduler::RoundRobin;
    let mut bench = Bench::new(web);
    bench.backend(1).admin = AdminState::Drain;
    bench.look();
    assert!(bench.has_only(&[2]));
    assert_eq!(bench.phases(), words(&["Settled"]));
}
