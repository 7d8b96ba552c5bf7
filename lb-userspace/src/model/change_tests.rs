use std::collections::BTreeMap;

use super::*;
use crate::model::{Limits, OnAllDown, OnStop};

pub(in crate::model) fn backend(name: &str, address: &str) -> Backend {
    Backend::new(name, address.parse().unwrap(), 80)
}

pub(in crate::model) fn service(name: &str, vip: &str) -> Service {
    Service::new(name, vip.parse().unwrap(), 80)
}

/// Services `api` (no backends) and `web` (web1, web2).
pub(in crate::model) fn model() -> Model {
    let empty = Model {
        node: "lb1".to_owned(),
        interfaces: vec![],
        manage_vips: true,
        metrics: Default::default(),
        hooks: Default::default(),
        cluster: None,
        vrrp: Default::default(),
        on_stop: OnStop::Keep,
        limits: Limits::default(),
        services: BTreeMap::new(),
    };
    let add = |name: &str, address: &str| Change::AddBackend {
        service: "web".to_owned(),
        backend: backend(name, address),
    };
    [
        Change::AddService(service("web", "203.0.113.10")),
        Change::AddService(service("api", "203.0.113.20")),
        add("web2", "10.0.0.12"),
        add("web1", "10.0.0.11"),
    ]
    .into_iter()
    .fold(empty, |model, change| model.apply(change).unwrap().0)
}

fn web() -> String {
    "web".to_owned()
}

#[test]
fn additions_are_there_and_the_old_model_is_not_touched() {
    let before = model();
    let change = Change::AddBackend {
        service: web(),
        backend: backend("web0", "10.0.0.10"),
    };
    let (after, warnings) = before.apply(change).unwrap();
    assert_eq!(warnings, []);
    let names = |model: &Model| {
        model.services["web"]
            .backends
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&after), ["web0", "web1", "web2"]);
    assert_eq!(names(&before), ["web1", "web2"]);
}

#[test]
fn weight_and_removal_hit_the_one_that_was_named() {
    let set = Change::SetBackendWeight {
        service: web(),
        backend: "web2".to_owned(),
        weight: 3,
    };
    let (model, _) = model().apply(set).unwrap();
    let weights: Vec<_> = model.services["web"]
        .backends
        .values()
        .map(|b| b.weight)
        .collect();
    assert_eq!(weights, [100, 3]);

    let remove = Change::RemoveBackend {
        service: web(),
        backend: "web1".to_owned(),
    };
    let (model, warnings) = model.apply(remove).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        model.services["web"].backends.keys().collect::<Vec<_>>(),
        ["web2"]
    );

    let (model, _) = model
        .apply(Change::RemoveService { service: web() })
        .unwrap();
    assert_eq!(model.services.keys().collect::<Vec<_>>(), ["api"]);
}

#[test]
fn warnings_are_about_the_service_concerned_only() {
    let remove = |name: &str| Change::RemoveBackend {
        service: web(),
        backend: name.to_owned(),
    };
    let (model, warnings) = model().apply(remove("web1")).unwrap();
    assert_eq!(warnings, [], "`api` has no backend, but that was not asked");
    let (_, warnings) = model.apply(remove("web2")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .to_string()
            .starts_with("service `web`: has no backend")
    );
}

#[test]
fn what_is_not_there_is_named_with_a_suggestion() {
    let text = |change| model().apply(change).unwrap_err().to_string();
    assert_eq!(
        text(Change::RemoveService {
            service: "wbe".to_owned()
        }),
        "no service `wbe`; did you mean `web`?"
    );
    assert_eq!(
        text(Change::RemoveBackend {
            service: web(),
            backend: "db7".to_owned()
        }),
        "service `web` has no backend `db7`; `lbctl backend list` shows those that exist"
    );
}

#[test]
fn a_change_obeys_the_rules_of_the_file() {
    let error = |change| model().apply(change).unwrap_err();
    let ModelError::Problems(problems) = error(Change::AddService(service("web", "203.0.113.30")))
    else {
        panic!("a duplicate name is a problem");
    };
    assert_eq!(problems[0].kind, Kind::Conflict);
    let weightless = Change::SetBackendWeight {
        service: web(),
        backend: "web1".to_owned(),
        weight: 0,
    };
    assert!(error(weightless).to_string().contains("remove it"));
}

#[test]
fn a_written_backend_takes_port_and_name_from_service_and_address() {
    let written = BackendDraft {
        address: Field::Given("10.0.0.13".parse().unwrap()),
        ..BackendDraft::default()
    };
    let made = backend_from(&model().services["web"], written).unwrap();
    assert_eq!(made, backend("10.0.0.13", "10.0.0.13"));
    let overweight = BackendDraft {
        address: Field::Given("10.0.0.13".parse().unwrap()),
        weight: Field::Given(1 << 40),
        ..BackendDraft::default()
    };
    let error = backend_from(&model().services["web"], overweight).unwrap_err();
    assert!(error.to_string().contains("is not in 1 to 1000"), "{error}");
}

fn set_admin(backend: &str, admin: AdminState) -> Change {
    Change::SetBackendAdmin {
        service: web(),
        backend: backend.to_owned(),
        admin,
        urgency: Urgency::Planned,
    }
}

fn set_health(backend: &str, health: Health) -> Change {
    Change::SetBackendHealth {
        service: web(),
        backend: backend.to_owned(),
        health,
    }
}

#[test]
fn admin_state_and_health_are_set_and_survive_other_changes() {
    let weight = Change::SetBackendWeight {
        service: web(),
        backend: "web1".to_owned(),
        weight: 7,
    };
    let changes = [
        set_admin("web1", AdminState::Drain),
        set_health("web1", Health::Up),
        weight,
        Change::RemoveService {
            service: "api".to_owned(),
        },
    ];
    let changed = changes.into_iter().fold(model(), |model, change| {
        let (model, warnings) = model.apply(change).unwrap();
        assert_eq!(warnings, []);
        model
    });
    let web1 = &changed.services["web"].backends["web1"];
    assert_eq!(
        (web1.admin, web1.health, web1.weight),
        (AdminState::Drain, Health::Up, 7)
    );
    let web2 = &changed.services["web"].backends["web2"];
    assert_eq!(
        (web2.admin, web2.health),
        (AdminState::Ready, Health::Unknown)
    );
}

#[test]
fn taking_the_last_one_out_tells_what_becomes_of_new_flows() {
    let warning = |policy, changes: [Change; 2]| {
        let mut model = model();
        let web = model.services.get_mut("web").unwrap();
        web.policies.on_all_down = policy;
        let [first, last] = changes;
        let (model, warnings) = model.apply(first).unwrap();
        assert_eq!(warnings, []);
        let (_, warnings) = model.apply(last).unwrap();
        assert_eq!(warnings.len(), 1);
        warnings[0].to_string()
    };
    let drain_all = || {
        [
            set_admin("web1", AdminState::Drain),
            set_admin("web2", AdminState::Maint),
        ]
    };
    assert_eq!(
        warning(OnAllDown::LastGood, drain_all()),
        "service `web`: no backend can take new flows (web1 drain, web2 maint): they go on to the \
         backends that had them last (on_all_down = \"last_good\") (to put one back: lbctl backend \
         ready web web1)"
    );
    assert!(warning(OnAllDown::Drop, drain_all()).contains("they are dropped"));
    let all_down = [
        set_health("web1", Health::Down),
        set_health("web2", Health::Down),
    ];
    assert_eq!(
        warning(OnAllDown::Reset, all_down),
        "service `web`: no backend can take new flows (web1 down, web2 down): they are answered with \
         RST (on_all_down = \"reset\")"
    );
}

#[test]
fn a_death_and_a_strict_drain_wait_for_nobody() {
    let strict = Change::SetBackendAdmin {
        service: web(),
        backend: "web1".to_owned(),
        admin: AdminState::Drain,
        urgency: Urgency::Immediate,
    };
    for change in [strict, set_health("web1", Health::Down)] {
        assert_eq!(change.urgency(), Urgency::Immediate);
    }
    for change in [
        set_admin("web1", AdminState::Drain),
        set_health("web1", Health::Up),
    ] {
        assert_eq!(change.urgency(), Urgency::Planned);
    }
}
