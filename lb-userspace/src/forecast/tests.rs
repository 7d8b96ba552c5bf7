use super::*;
use crate::config::{Overrides, parse};
use crate::model::{AdminState, AgentState, Change, Fit, Health, Observation};
use crate::transition::sweep::FlowCounts;

/// `web` with web1 to web3, and these keys.
fn model(keys: &str) -> Model {
    let backends: String = (1..=3)
        .map(|n| format!("[[service.backend]]\nname = \"web{n}\"\naddress = \"10.0.0.1{n}\"\n"))
        .collect();
    parsed(&format!(
        "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n{keys}\n{backends}"
    ))
}

fn parsed(text: &str) -> Model {
    let overrides = Overrides {
        interfaces: vec![],
        node: "lb1".to_owned(),
    };
    parse("lbd.toml", text, &overrides).unwrap().model
}

/// Each backend has 3 established flows and 1 half-open one, and each slot one.
fn busy(service: &Service) -> Present {
    let mut present = Present::settled(service);
    let counts = FlowCounts {
        established_count: 3,
        half_open_count: 1,
        closing_count: 0,
    };
    present.flows = present.ids.values().map(|id| (*id, counts)).collect();
    present.flows_by_slot = vec![1; present.ring.len()];
    present
}

fn web(forecast: Forecast) -> ServiceForecast {
    let mut services = forecast.services;
    assert_eq!(services.len(), 1, "{services:#?}");
    services.remove(0)
}

fn after(model: &Model, change: Change) -> ServiceForecast {
    let urgency = change.urgency();
    let changed = model.apply(change).unwrap().0;
    web(forecast(model, &changed, urgency, busy))
}

fn admin(backend: &str, admin: AdminState, urgency: Urgency) -> Change {
    Change::SetBackendAdmin {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        admin,
        urgency,
    }
}

fn drain(backend: &str) -> Change {
    admin(backend, AdminState::Drain, Urgency::Planned)
}

fn down(backend: &str) -> Change {
    Change::SetBackendHealth {
        service: "web".to_owned(),
        backend: backend.to_owned(),
        health: Health::Down,
    }
}

fn remove(backend: &str) -> Change {
    Change::RemoveBackend {
        service: "web".to_owned(),
        backend: backend.to_owned(),
    }
}

/// The reasons, with the backend that they are about.
fn reasons(forecast: &ServiceForecast) -> Vec<String> {
    let text = |one: &Breakage| {
        format!(
            "{}: {}",
            one.backend.as_deref().unwrap_or("all"),
            one.reason
        )
    };
    forecast.breakages.iter().map(text).collect()
}

#[test]
fn a_drain_moves_the_slots_of_one_and_breaks_nothing() {
    let model = model("");
    let forecast = after(&model, drain("web1"));
    let shares: Vec<_> = forecast
        .moves
        .iter()
        .map(|one| {
            (
                one.backend.as_str(),
                one.before_count > 0,
                one.after_count > 0,
            )
        })
        .collect();
    assert_eq!(
        shares,
        [
            ("web1", true, false),
            ("web2", true, true),
            ("web3", true, true)
        ]
    );
    let moved = forecast.moved_count.unwrap();
    let of_web1 = forecast.moves[0].before_count;
    // The disturbance of others is bounded in lb-common's tests.
    assert!(
        (of_web1..of_web1 + forecast.slot_count / 50).contains(&moved),
        "{moved}"
    );
    assert_eq!(forecast.affected_count, u64::from(moved), "a flow a slot");
    assert_eq!(forecast.breakages, []);
    assert!(
        forecast.notes[0].contains("after 1.5 s"),
        "{:?}",
        forecast.notes
    );

    let strict = after(&model, admin("web1", AdminState::Drain, Urgency::Immediate));
    assert!(strict.notes[0].contains("handshakes under way may fail"));
    let ready = after(
        &model.apply(drain("web1")).unwrap().0,
        admin("web1", AdminState::Ready, Urgency::Planned),
    );
    assert_eq!(
        (ready.moves[0].before_count, ready.moved_count),
        (0, Some(moved))
    );
}

#[test]
fn a_backend_that_loses_the_role_loses_its_flows() {
    let demoted = Change::Observe(vec![Observation {
        service: "web".to_owned(),
        backend: "web1".to_owned(),
        endpoint: "10.0.0.11:80".parse().unwrap(),
        health: Health::Up,
        fit: Fit::Unfit,
        agent: AgentState::default(),
    }]);
    let forecast = after(&model("on_remove = \"reset\""), demoted);
    assert_eq!(
        reasons(&forecast),
        ["web1: it has not the service's role, and on_remove = \"reset\""]
    );
    assert!(
        forecast.notes[0].contains("new flows leave web1 at once"),
        "{:?}",
        forecast.notes
    );
}

#[test]
fn when_nobody_is_left_nothing_moves() {
    let mut model = model("");
    for name in ["web1", "web2"] {
        model = model.apply(drain(name)).unwrap().0;
    }
    let last = after(&model, drain("web3"));
    assert_eq!(last.moved_count, Some(0));
    assert_eq!(last.moves[0].after_count, last.slot_count);
}

#[test]
fn policies_decide_what_ends() {
    let maint = admin("web1", AdminState::Maint, Urgency::Planned);
    let cases = [
        ("", maint.clone(), vec![]),
        ("", remove("web1"), vec![]),
        ("", down("web1"), vec![]),
        (
            "on_remove = \"reset\"",
            maint,
            vec!["web1: it is in maintenance, and on_remove = \"reset\""],
        ),
        ("on_remove = \"reset\"", drain("web1"), vec![]),
        (
            "on_remove = \"drop\"",
            remove("web1"),
            vec!["web1: it is removed, and on_remove = \"drop\""],
        ),
        (
            "on_down = \"reset\"",
            down("web1"),
            vec!["web1: it is down, and on_down = \"reset\""],
        ),
    ];
    for (keys, change, expected) in cases {
        let forecast = after(&model(keys), change);
        assert_eq!(reasons(&forecast), expected, "{keys}");
        for breakage in &forecast.breakages {
            assert_eq!((breakage.known_count, breakage.is_complete), (4, false));
        }
    }
}

#[test]
fn what_has_ended_already_does_not_end_again() {
    let down = model("on_down = \"reset\"\non_remove = \"reset\"")
        .apply(down("web1"))
        .unwrap()
        .0;
    assert_eq!(after(&down, remove("web1")).breakages, []);
}

#[test]
fn a_service_that_goes_or_becomes_another_one_breaks_all() {
    let removal = Change::RemoveService {
        service: "web".to_owned(),
    };
    let forecast = after(&model(""), removal);
    assert_eq!(
        reasons(&forecast),
        ["all: the service goes: nothing answers for its VIP any more"]
    );
    assert_eq!(forecast.breakages[0].known_count, 12);
    assert!(!forecast.breakages[0].is_complete);

    let pairs = [
        ("", "scheduler = \"round-robin\"", "all: scheduler changes"),
        ("", "ring_slots = 65521", "all: ring_slots changes"),
        (
            "",
            "forward = \"nat\"",
            "all: forward changes from dsr to nat",
        ),
        (
            "protocol = \"udp\"",
            "",
            "all: its VIP, port or protocol changes",
        ),
        (
            "protocol = \"udp\"",
            "protocol = \"udp\"\nflow = \"hash\"",
            "all: flow changes",
        ),
    ];
    for (before, after, reason) in pairs {
        let forecast = web(super::forecast(
            &model(before),
            &model(after),
            Urgency::Planned,
            busy,
        ));
        assert!(
            reasons(&forecast)[0].starts_with(reason),
            "{:?}",
            reasons(&forecast)
        );
        assert_eq!(forecast.breakages.len(), 1);
    }
}

#[test]
fn flows_that_are_all_on_record_are_counted_and_do_not_follow_slots() {
    let model = model("scheduler = \"round-robin\"\non_remove = \"reset\"");
    let forecast = after(&model, remove("web1"));
    assert_eq!((forecast.moved_count, forecast.affected_count), (None, 0));
    let breakage = &forecast.breakages[0];
    assert_eq!((breakage.known_count, breakage.is_complete), (4, true));
    assert_eq!(after(&model, drain("web1")).breakages, []);
    assert!(
        forecast.notes[0].contains("at once"),
        "{:?}",
        forecast.notes
    );
}

#[test]
fn slots_of_a_backend_whose_flows_end_move_at_once() {
    let health = |state| Change::SetBackendHealth {
        service: "web".to_owned(),
        backend: "web1".to_owned(),
        health: state,
    };
    let leave = "new flows leave web1 at once";
    for (keys, change) in [
        ("on_remove = \"reset\"", remove("web1")),
        (
            "on_remove = \"drop\"",
            admin("web1", AdminState::Maint, Urgency::Planned),
        ),
        ("", health(Health::Down)),
        ("", admin("web1", AdminState::Drain, Urgency::Immediate)),
    ] {
        let notes = after(&model(keys), change).notes;
        assert!(notes[0].contains(leave), "{notes:?}");
        assert!(notes.last().unwrap().contains("settle"), "{notes:?}");
    }
    let notes = after(&model(""), remove("web1")).notes;
    assert!(notes[0].starts_with("new flows follow after 1.5 s"));

    // From one that is down they are taken at once also when another one comes back.
    let mut down = model("");
    for name in ["web1", "web2", "web3"] {
        let service = down.services.get_mut("web").unwrap();
        service.backends.get_mut(name).unwrap().health = Health::Down;
    }
    let up = Change::SetBackendHealth {
        service: "web".to_owned(),
        backend: "web2".to_owned(),
        health: Health::Up,
    };
    let present = |service: &Service| {
        let mut present = busy(service);
        let web1 = present.ids[&("10.0.0.11".parse().unwrap(), 80)];
        present.ring = vec![web1; service.ring_slots as usize];
        present
    };
    let (after, _) = down.apply(up).unwrap();
    let forecast = web(forecast(&down, &after, Urgency::Planned, present));
    assert!(forecast.notes[0].contains(leave), "{:?}", forecast.notes);
}

#[test]
fn udp_that_follows_the_hash_moves_at_once() {
    let udp = "protocol = \"udp\"\nflow = \"hash\"";
    let forecast = after(&model(udp), drain("web1"));
    assert!(
        reasons(&forecast)[0].contains("at once"),
        "{:?}",
        reasons(&forecast)
    );
    let pinned = after(&model("protocol = \"udp\""), drain("web1"));
    assert_eq!(pinned.breakages, []);
    assert!(pinned.moved_count.unwrap() > 0);
}

#[test]
fn another_name_is_no_other_service_and_what_stays_is_not_told() {
    let before = model("");
    let renamed = parsed(
        "[[service]]\nname = \"www\"\nvip = \"203.0.113.10\"\nport = 80\n\
         [[service.backend]]\nname = \"one\"\naddress = \"10.0.0.11\"\n\
         [[service.backend]]\naddress = \"10.0.0.12\"\n[[service.backend]]\naddress = \"10.0.0.13\"\n",
    );
    let forecast = forecast(&before, &renamed, Urgency::Planned, busy);
    assert_eq!(forecast.services[0].moved_count, Some(0));
    assert_eq!(forecast.services[0].breakages, []);
    let none = super::forecast(&before, &before, Urgency::Planned, busy);
    assert_eq!(none, Forecast::default());
}

#[test]
fn a_new_service_has_no_flow_and_a_ring() {
    let forecast = web(forecast(&parsed(""), &model(""), Urgency::Planned, busy));
    assert_eq!((forecast.slot_count, forecast.moved_count), (16_381, None));
    assert_eq!(forecast.moves.len(), 3);
    assert_eq!(forecast.breakages, []);
}

#[test]
fn a_shorter_idle_time_out_is_told() {
    let (long, short) = (model(""), model("idle_timeout = \"30s\""));
    let forecast = forecast(&long, &short, Urgency::Planned, busy);
    assert_eq!(
        forecast.differences,
        ["service `web` idle_timeout 15m -> 30s"]
    );
    assert!(
        forecast.services[0].notes[0].contains("30s"),
        "{forecast:#?}"
    );
}
