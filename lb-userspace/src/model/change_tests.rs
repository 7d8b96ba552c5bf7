use std::collections::BTreeMap;

use super::*;
use crate::model::{ForwardMode, Limits, Protocol, Scheduler};

fn backend(name: &str, address: &str) -> Backend {
    Backend {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        port: 80,
        weight: 100,
    }
}

fn service(name: &str, vip: &str) -> Service {
    Service {
        name: name.to_owned(),
        vip: vip.parse().unwrap(),
        port: 80,
        protocol: Protocol::Tcp,
        scheduler: Scheduler::Maglev,
        forward: ForwardMode::Dsr,
        idle_timeout_s: 900,
        ring_slots: 16_381,
        backends: BTreeMap::new(),
    }
}

/// Services `api` (no backends) and `web` (web1, web2).
fn model() -> Model {
    let empty = Model {
        node: "lb1".to_owned(),
        interfaces: vec![],
        manage_vips: true,
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
