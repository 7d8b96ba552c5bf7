//! Replicas that hear each other in any order end up with the same.

use proptest::prelude::*;

use super::*;
use crate::config::tests::model;
use crate::model::{AdminState, Backend, Change, Health, Model, Urgency};

const NOW_MS: u64 = 1_700_000_000_000;

const FILE: &str = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n\
                    [[service.backend]]\nname = \"web1\"\naddress = \"10.0.0.1\"\n\
                    [[service.backend]]\nname = \"web2\"\naddress = \"10.0.0.2\"\n";

/// A node as the engine has it.
#[derive(Clone)]
struct Node {
    file: Model,
    current: Model,
    overlay: Overlay,
    now_ms: u64,
}

impl Node {
    fn new(name: &str) -> Self {
        let file = model(FILE);
        Self {
            current: file.clone(),
            file,
            overlay: Overlay::new(name),
            now_ms: NOW_MS,
        }
    }

    /// As `lbctl` does; what is refused changes nothing.
    fn change(&mut self, change: Change) {
        if let Ok((after, _)) = self.current.apply(change) {
            self.overlay.note_change(&self.current, &after, self.now_ms);
            self.current = after;
        }
    }

    fn hear(&mut self, entries: Vec<Entry>) -> (Merged, Vec<String>) {
        let merged = self.overlay.merge(entries, self.now_ms);
        let laid = self.overlay.model(&self.file, &self.current);
        self.current = laid.model;
        (merged, laid.refused)
    }

    fn reload(&mut self, file: Model) {
        self.overlay.note_reload(self.now_ms);
        self.file = file;
        let laid = self.overlay.model(&self.file, &self.current);
        self.current = laid.model;
    }

    fn backend(&self, name: &str) -> &Backend {
        &self.current.services["web"].backends[name]
    }
}

fn weight(backend: &str, weight: u32) -> Change {
    Change::SetBackendWeight {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        weight,
    }
}

fn admin(backend: &str, admin: AdminState) -> Change {
    Change::SetBackendAdmin {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        admin,
        urgency: Urgency::Planned,
    }
}

fn health(backend: &str, health: Health) -> Change {
    Change::SetBackendHealth {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        health,
    }
}

fn add(backend: &str, host: u8) -> Change {
    let address = format!("10.0.0.{host}").parse().unwrap();
    Change::AddBackend {
        service: "web".to_owned(),
        backend: Backend::new(backend, address, 80),
    }
}

fn remove(backend: &str) -> Change {
    Change::RemoveBackend {
        service: "web".to_owned(),
        backend: backend.to_owned(),
    }
}

/// All that one has to say, through the bytes that go over the wire.
fn all(node: &Node) -> Vec<Entry> {
    let bytes = postcard::to_stdvec(&node.overlay.entries()).unwrap();
    postcard::from_bytes(&bytes).unwrap()
}

#[test]
fn a_change_on_one_node_holds_on_both() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    for change in [
        admin("web1", AdminState::Drain),
        weight("web2", 7),
        health("web2", Health::Down),
        add("web3", 3),
    ] {
        one.change(change);
    }
    assert_eq!(one.overlay.len(), 4);
    let (merged, refused) = other.hear(all(&one));
    assert_eq!((merged.changed.len(), refused.len()), (4, 0));
    assert_eq!(other.current, one.current);
    assert_eq!(other.overlay.digest(), one.overlay.digest());
    // Once more changes nothing.
    assert_eq!(other.hear(all(&one)).0, Merged::default());
    other.change(remove("web3"));
    one.hear(all(&other));
    assert_eq!(one.current, other.current);
    assert!(!one.current.services["web"].backends.contains_key("web3"));
    // Who gets the name later is ready.
    other.change(add("web3", 4));
    one.hear(all(&other));
    assert_eq!(one.backend("web3").admin, AdminState::Ready);
    assert_eq!(one.current, other.current);
}

#[test]
fn a_service_that_comes_back_does_not_bring_its_old_backends() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.change(Change::RemoveService {
        service: "web".to_owned(),
    });
    other.hear(all(&one));
    assert_eq!(other.current.services.len(), 0);
    let web = crate::model::Service::new("web", "203.0.113.11".parse().unwrap(), 443);
    one.change(Change::AddService(web));
    other.hear(all(&one));
    assert_eq!(other.current, one.current);
    assert!(other.current.services["web"].backends.is_empty());
}

#[test]
fn what_checks_have_found_is_not_shared() {
    let checked = format!("{FILE}[[service.check]]\ntype = \"tcp\"\n");
    let checked = checked.replace("port = 80\n", "port = 80\ncheck = [{ type = \"tcp\" }]\n");
    let checked = checked.replace("[[service.check]]\ntype = \"tcp\"\n", "");
    let before = model(&checked);
    let (after, _) = before.apply(health("web1", Health::Down)).unwrap();
    let mut overlay = Overlay::new("lb1");
    assert_eq!(overlay.note_change(&before, &after, NOW_MS), 0);
    assert!(overlay.is_empty());
}

#[test]
fn a_reload_takes_back_what_was_changed_on_all_nodes_and_keeps_admin_states() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.change(weight("web1", 7));
    one.change(admin("web2", AdminState::Maint));
    other.hear(all(&one));
    let file = other.file.clone();
    other.reload(file);
    one.hear(all(&other));
    for node in [&one, &other] {
        assert_eq!(node.backend("web1").weight, 100);
        assert_eq!(node.backend("web2").admin, AdminState::Maint);
    }
    // The word that took it back goes when everybody has it, and later than that.
    assert_eq!(one.overlay.digest(), other.overlay.digest());
    let count = one.overlay.len();
    one.overlay.forget(NOW_MS + 60_000);
    assert_eq!(one.overlay.len(), count);
    one.overlay.forget(NOW_MS + 2 * 3_600_000);
    assert_eq!(one.overlay.len(), count - 1);
    assert_eq!(one.overlay.digest(), other.overlay.digest());
    // Said again by one that has it still, it changes nothing.
    let before = one.current.clone();
    one.hear(all(&other));
    assert_eq!(one.current, before);
}

#[test]
fn what_breaks_a_rule_here_is_refused_as_a_whole_and_the_rest_holds() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    // Here another service has the endpoint.
    let text = format!("{FILE}[[service]]\nname = \"own\"\nvip = \"203.0.113.11\"\nport = 80\n");
    other.reload(model(&text));
    one.change(admin("web1", AdminState::Drain));
    let db = crate::model::Service::new("db", "203.0.113.11".parse().unwrap(), 80);
    one.change(Change::AddService(db));
    let (_, refused) = other.hear(all(&one));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("service `db`: "), "{refused:?}");
    assert!(refused[0].contains("belongs to service"), "{refused:?}");
    assert_eq!(other.backend("web1").admin, AdminState::Drain);
    assert!(!other.current.services.contains_key("db"));
    assert_eq!(other.overlay.digest(), one.overlay.digest());
}

#[test]
fn what_has_no_room_for_its_ring_here_is_left_out_and_the_rest_holds() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    let mut small = other.file.clone();
    let slots = small.services["web"].ring_slots;
    small.limits.ring_blocks = slots.div_ceil(lb_common::limits::RING_BLOCK_SLOTS as u32);
    other.reload(small);
    one.change(admin("web1", AdminState::Drain));
    let mut db = crate::model::Service::new("db", "203.0.113.11".parse().unwrap(), 80);
    let backend = one.backend("web2").clone();
    db.backends.insert("db1".to_owned(), backend);
    one.change(Change::AddService(db));
    assert!(one.current.services.contains_key("db"));
    let (_, refused) = other.hear(all(&one));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("raise `limits.ring_blocks`"),
        "{refused:?}"
    );
    assert_eq!(other.backend("web1").admin, AdminState::Drain);
    assert!(!other.current.services.contains_key("db"));
}

#[test]
fn a_clock_that_is_an_hour_ahead_freezes_nothing() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.now_ms += 3_600_000;
    one.change(weight("web1", 7));
    other.hear(all(&one));
    assert_eq!(other.backend("web1").weight, 7);
    // What is said after it was heard is later, by whatever clock.
    other.change(weight("web1", 8));
    one.hear(all(&other));
    assert_eq!(one.backend("web1").weight, 8);
    // Set right, the first one goes on.
    one.now_ms = NOW_MS;
    one.change(weight("web1", 9));
    other.hear(all(&one));
    assert_eq!(other.backend("web1").weight, 9);
}

#[test]
fn a_clock_that_is_years_ahead_is_refused_and_once_it_is_right_all_is_said_again() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.now_ms += 400 * 24 * 3_600_000;
    one.change(weight("web1", 7));
    one.change(weight("web1", 8));
    let (merged, _) = other.hear(all(&one));
    assert_eq!((merged.refused_count, merged.changed.len()), (1, 0));
    assert_eq!(merged.ahead_count, 1);
    assert!(merged.refused[0].contains("the clock of lb1"), "{merged:?}");
    other.change(weight("web2", 3));
    assert!(all(&other)[0].stamp.wall_ms <= NOW_MS);
    one.now_ms = NOW_MS + 1_000;
    one.change(weight("web2", 5));
    other.now_ms = NOW_MS + 1_000;
    let (merged, _) = other.hear(all(&one));
    assert_eq!((merged.refused_count, merged.changed.len()), (0, 2));
    assert_eq!(
        (other.backend("web1").weight, other.backend("web2").weight),
        (8, 5)
    );
}

/// What takes back something that is not known here takes nothing back: both have the same.
#[test]
fn words_from_years_ahead_that_change_nothing_are_not_missed() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.now_ms += 400 * 24 * 3_600_000;
    one.change(weight("web1", 7));
    one.overlay.note_reload(one.now_ms);
    let (merged, _) = other.hear(all(&one));
    assert_eq!((merged.refused_count, merged.ahead_count), (1, 0));
    assert_eq!(one.overlay.digest(), other.overlay.digest());
}

/// Nobody has to change anything for that.
#[test]
fn a_clock_that_was_set_right_sets_its_stamps_right() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.now_ms += 400 * 24 * 3_600_000;
    one.change(weight("web1", 7));
    assert!(!one.overlay.set_stamps_right(one.now_ms));
    one.now_ms = NOW_MS;
    assert!(one.overlay.set_stamps_right(one.now_ms));
    assert!(!one.overlay.set_stamps_right(one.now_ms));
    let (merged, _) = other.hear(all(&one));
    assert_eq!((merged.refused_count, merged.changed.len()), (0, 1));
    assert_eq!(other.backend("web1").weight, 7);
}

#[test]
fn nonsense_is_refused_and_fills_no_memory() {
    let mut node = Node::new("lb1");
    let entry = |key, word| Entry {
        key,
        stamp: Stamp {
            wall_ms: NOW_MS,
            count: 0,
            node: "lb2".to_owned(),
        },
        word,
    };
    let long = "x".repeat(5_000);
    let web = || Key::Service("web".to_owned());
    let entries = vec![
        entry(Key::Service(String::new()), Word::Removed),
        entry(Key::Service(long.clone()), Word::Removed),
        entry(Key::Backend("web".to_owned(), long.clone()), Word::Removed),
        entry(web(), Word::Is(long)),
    ];
    let (merged, _) = node.hear(entries);
    assert_eq!((merged.refused_count, node.overlay.len()), (4, 0));
    let (_, refused) = node.hear(vec![entry(web(), Word::Is("{\"vip\": 7}".to_owned()))]);
    assert!(refused[0].contains("it is not understood"), "{refused:?}");
    assert_eq!(node.current, node.file);
    let many = (0..ENTRIES_MAX + 10).map(|n| entry(Key::Service(format!("s{n}")), Word::FromFile));
    let mut overlay = Overlay::new("lb1");
    let merged = overlay.merge(many.collect(), NOW_MS);
    assert_eq!((overlay.len(), merged.refused_count), (ENTRIES_MAX, 10));
}

#[test]
fn only_what_is_new_is_sent_and_what_was_saved_is_there_again() {
    let mut node = Node::new("lb1");
    node.change(weight("web1", 7));
    let (first, number) = node.overlay.since(0);
    assert_eq!(first.len(), 1);
    assert_eq!(node.overlay.since(number).0, []);
    node.change(weight("web2", 8));
    let (second, _) = node.overlay.since(number);
    assert_eq!(second.len(), 1);
    let json = serde_json::to_string(&node.overlay.entries()).unwrap();
    let entries: Vec<Entry> = serde_json::from_str(&json).unwrap();
    let mut restored = Overlay::restored("lb1", entries);
    assert_eq!(restored.digest(), node.overlay.digest());
    // A clock that was set back meanwhile makes no word older than those.
    let (after, _) = node.current.apply(weight("web1", 9)).unwrap();
    restored.note_change(&node.current, &after, NOW_MS - 3_600_000);
    let mut other = Node::new("lb2");
    other.hear(all(&node));
    other.hear(restored.entries());
    assert_eq!(other.backend("web1").weight, 9);
}

#[test]
fn drift_names_what_is_different() {
    let here = Outline::of(&model(FILE));
    assert_eq!(here.drift(&here), [""; 0]);
    let text = FILE.replace("name = \"web2\"", "name = \"web3\"").replace(
        "address = \"10.0.0.1\"\n",
        "address = \"10.0.0.1\"\nweight = 7\n",
    );
    let there = Outline::of(&model(&text));
    assert_ne!(here.digest(), there.digest());
    assert_eq!(
        here.drift(&there),
        [
            "service `web`, backend `web1` weight 100 -> 7",
            "service `web`, backend `web2` is here alone",
            "service `web`, backend `web3` is there alone",
        ]
    );
    let other = "[limits]\nflows = 4096\n[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\n\
                 vips = \"203.0.113.10\"\n";
    assert_eq!(
        here.drift(&Outline::of(&model(other))),
        [
            "vrrp group `web` is there alone".to_owned(),
            "service `web` is here alone".to_owned(),
            format!("limits.flows {} -> 4096", lb_common::limits::FLOWS_DEFAULT),
        ]
    );
}

#[test]
fn a_service_that_is_added_again_where_only_its_removal_was_heard_is_empty() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.change(Change::RemoveService {
        service: "web".to_owned(),
    });
    let mut said = all(&one);
    said.retain(|entry| matches!(entry.key, Key::Service(_)));
    other.hear(said);
    assert!(other.current.services.is_empty());
    let web = crate::model::Service::new("web", "203.0.113.10".parse().unwrap(), 80);
    other.change(Change::AddService(web));
    one.hear(all(&other));
    other.hear(all(&one));
    assert_eq!(one.current, other.current);
    assert!(one.current.services["web"].backends.is_empty());
}

#[test]
fn a_backend_that_took_anothers_place_is_not_taken_for_it() {
    let (mut one, mut other) = (Node::new("lb1"), Node::new("lb2"));
    one.change(admin("web1", AdminState::Drain));
    one.change(health("web1", Health::Down));
    other.hear(all(&one));
    one.change(remove("web1"));
    one.change(add("web5", 1));
    one.change(remove("web2"));
    one.change(add("web2", 2));
    // All at once.
    other.hear(all(&one));
    assert_eq!(other.current, one.current);
    let web5 = other.backend("web5");
    assert_eq!(
        (web5.admin, web5.health),
        (AdminState::Ready, Health::Unknown)
    );
}

/// Something that happens among replicas.
#[derive(Clone, Debug)]
enum Step {
    Change(usize, u8, u8),
    /// From, to, how much of it arrives: a bit for each entry.
    Say(usize, usize, u64),
    Reload(usize),
    /// A clock jumps. Unit: seconds.
    Jump(usize, i32),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..5_usize;
    prop_oneof![
        4 => (node.clone(), 0..6_u8, any::<u8>()).prop_map(|(n, what, how)| Step::Change(n, what, how)),
        4 => (node.clone(), node.clone(), any::<u64>()).prop_map(|(a, b, m)| Step::Say(a, b, m)),
        1 => node.clone().prop_map(Step::Reload),
        1 => (node, -4_000..4_000_i32).prop_map(|(n, s)| Step::Jump(n, s)),
    ]
}

fn some_change(what: u8, how: u8) -> Change {
    let name = format!("web{}", how % 4 + 1);
    match what {
        0 => weight(&name, u32::from(how) + 1),
        1 => admin(
            &name,
            [AdminState::Drain, AdminState::Ready][usize::from(how & 1)],
        ),
        2 => health(&name, [Health::Down, Health::Up][usize::from(how & 1)]),
        3 => add(&name, how % 4 + 1),
        4 => remove(&name),
        _ if how.is_multiple_of(2) => Change::RemoveService {
            service: "web".to_owned(),
        },
        _ => Change::AddService(crate::model::Service::new(
            "web",
            "203.0.113.10".parse().unwrap(),
            80,
        )),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    #[test]
    fn replicas_converge_whatever_gets_lost_repeated_or_late(
        count in 2..=5_usize,
        steps in proptest::collection::vec(step(), 0..40),
        order in any::<u64>(),
    ) {
        let mut nodes: Vec<Node> = (0..count).map(|n| Node::new(&format!("lb{n}"))).collect();
        // What is under way, and may come late or twice.
        let mut late: Vec<(usize, Vec<Entry>)> = Vec::new();
        for step in steps {
            match step {
                Step::Change(n, what, how) => {
                    let node = &mut nodes[n % count];
                    node.change(some_change(what, how));
                    // The words say what is in force.
                    let laid = node.overlay.model(&node.file, &node.current);
                    prop_assert_eq!(&laid.model, &node.current);
                }
                Step::Reload(n) => {
                    let file = nodes[n % count].file.clone();
                    nodes[n % count].reload(file);
                }
                Step::Jump(n, by_s) => {
                    let now_ms = &mut nodes[n % count].now_ms;
                    *now_ms = now_ms.saturating_add_signed(i64::from(by_s) * 1_000).max(NOW_MS - 9_000_000);
                    *now_ms = (*now_ms).min(NOW_MS + 9_000_000);
                }
                Step::Say(from, to, mask) => {
                    let said = all(&nodes[from % count]);
                    let arrives = |n: &usize| mask >> (n % 64) & 1 == 1;
                    let now = said.iter().enumerate().filter(|(n, _)| arrives(n));
                    let now: Vec<Entry> = now.map(|(_, one)| one.clone()).collect();
                    nodes[to % count].hear(now);
                    late.push((to % count, said));
                }
            }
        }
        if order & 1 == 1 {
            late.reverse();
        }
        for (to, said) in late {
            nodes[to].hear(said);
        }
        // Healed: everybody says all to everybody, until nothing is new.
        for _ in 0..count {
            for from in 0..count {
                let said = all(&nodes[from]);
                for node in &mut nodes {
                    node.hear(said.clone());
                }
            }
        }
        let digest = nodes[0].overlay.digest();
        let services = nodes[0].overlay.model(&nodes[0].file, &nodes[0].current).model.services;
        for node in &nodes[1..] {
            prop_assert_eq!(node.overlay.digest(), digest);
            prop_assert_eq!(node.overlay.entries(), nodes[0].overlay.entries());
            let own = node.overlay.model(&node.file, &node.current).model.services;
            for (name, service) in &own {
                for (backend, one) in &service.backends {
                    let there = &services[name].backends[backend];
                    prop_assert_eq!(one, there);
                }
                prop_assert_eq!(service.backends.len(), services[name].backends.len());
            }
            prop_assert_eq!(own.len(), services.len());
        }
        // Idempotent.
        let said = all(&nodes[0]);
        let before = nodes[0].current.clone();
        prop_assert_eq!(nodes[0].hear(said).0, Merged::default());
        prop_assert_eq!(&nodes[0].current, &before);
    }
}
