//! What is saved, and what a start makes of it.

use super::super::change::tests::{backend, model};
use super::super::{Change, Urgency};
use super::*;

/// The file's model with `web1` drained, `web2` re-weighted and down, `web3` added.
fn changed(file: &Model) -> Model {
    let (service, web2) = ("web".to_owned(), "web2".to_owned());
    let changes = [
        Change::SetBackendAdmin {
            service: service.clone(),
            backend: "web1".to_owned(),
            admin: AdminState::Drain,
            urgency: Urgency::Planned,
        },
        Change::SetBackendWeight {
            service: service.clone(),
            backend: web2.clone(),
            weight: 7,
        },
        Change::SetBackendHealth {
            service: service.clone(),
            backend: web2,
            health: Health::Down,
        },
        Change::AddBackend {
            service,
            backend: backend("web3", "10.0.0.13"),
        },
    ];
    let apply = |model: Model, change| model.apply(change).unwrap().0;
    changes.into_iter().fold(file.clone(), apply)
}

fn saved(file: &Model, current: &Model) -> Saved {
    let json = Saved::of(file, current).to_json().unwrap();
    Saved::from_json(&json).unwrap()
}

#[test]
fn with_the_same_file_all_is_as_it_was() {
    let file = model();
    let current = changed(&file);
    let resumed = saved(&file, &current).resume(file);
    assert_eq!(resumed.model, current);
    assert_eq!(
        resumed.restored,
        [
            "service `web`, backend `web2` weight 100 -> 7",
            "service `web`, backend `web3` added",
        ]
    );
    assert_eq!(resumed.dropped, Vec::<String>::new());
}

#[test]
fn checks_and_what_they_have_found_survive() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let own = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    std::fs::write(path("ca.pem"), own.cert.pem()).unwrap();
    std::fs::write(path("pw"), "hunter2\n").unwrap();
    let text = format!(
        "[[service]]\nname = \"db\"\nvip = \"203.0.113.20\"\nport = 3306\nrole = \"writer\"\n\
         hold_down = \"5s\"\n\
         [[service.check]]\ntype = \"mysql\"\nuser = \"check\"\npassword_file = \"{}\"\n\
         [[service.check]]\ntype = \"https\"\nport = 8443\nca_file = \"{}\"\n\
         [[service.backend]]\nname = \"db1\"\naddress = \"10.0.0.21\"\n\
         [[service.backend]]\nname = \"db2\"\naddress = \"10.0.0.22\"\n",
        path("pw"),
        path("ca.pem")
    );
    let file = crate::config::tests::model(&text);
    let mut current = file.clone();
    let agent = AgentState {
        admin: Some(AdminState::Drain),
        weight_percent: Some(50),
    };
    let observation = super::super::Observation {
        service: "db".to_owned(),
        backend: "db1".to_owned(),
        endpoint: "10.0.0.21:3306".parse().unwrap(),
        health: Health::Up,
        fit: Fit::Fit,
        agent,
    };
    assert_eq!(current.observe(&[observation]).len(), 1);
    let json = Saved::of(&file, &current).to_json().unwrap();
    let json = String::from_utf8(json).unwrap();
    assert!(
        !json.contains("hunter2") && !json.contains("CERTIFICATE"),
        "{json}"
    );
    let saved = Saved::from_json(json.as_bytes()).unwrap();
    let resumed = saved.resume(file.clone());
    assert_eq!(resumed.model, current);
    assert_eq!(resumed.dropped, [""; 0]);
    // A certificate that was renewed is no other configuration.
    let renewed = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    std::fs::write(path("ca.pem"), renewed.cert.pem()).unwrap();
    let reloaded = crate::config::tests::model(&text);
    assert_ne!(reloaded, file);
    let resumed = saved.resume(reloaded.clone());
    assert_eq!(resumed.dropped, [""; 0]);
    assert_eq!(
        resumed.model.services["db"].checks,
        reloaded.services["db"].checks
    );
    assert_eq!(resumed.model.services["db"].backends["db1"].agent, agent);
}

#[test]
fn what_was_saved_before_there_were_checks_is_read_as_having_none() {
    let file = model();
    let json = Saved::of(&file, &changed(&file)).to_json().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let newer = [
        "checks",
        "check_mode",
        "hold_down_s",
        "doubt",
        "role",
        "max_lag_s",
        "primary_as_last_resort",
        "fit",
        "agent",
    ];
    let strip = |value: &mut serde_json::Value| {
        let object = value.as_object_mut().unwrap();
        newer.iter().for_each(|key| drop(object.remove(*key)));
    };
    for part in ["file", "current"] {
        for service in json[part].as_array_mut().unwrap() {
            strip(service);
            service["backends"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(strip);
        }
    }
    let saved = Saved::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(saved.resume(file.clone()).model, changed(&file));
}

#[test]
fn a_changed_file_wins_and_keeps_the_state_of_those_that_remain() {
    let file = model();
    let mut new = model();
    new.services.get_mut("web").unwrap().idle_timeout_s = 30;
    let resumed = saved(&file, &changed(&file)).resume(new.clone());
    let web = &resumed.model.services["web"];
    assert_eq!(web.idle_timeout_s, 30);
    assert_eq!(web.backends.keys().collect::<Vec<_>>(), ["web1", "web2"]);
    assert_eq!(web.backends["web1"].admin, AdminState::Drain);
    assert_eq!(
        (web.backends["web2"].health, web.backends["web2"].weight),
        (Health::Down, 100)
    );
    assert_eq!(
        resumed.dropped,
        [
            "service `web`, backend `web2` weight 100 -> 7 (the config file has changed)",
            "service `web`, backend `web3` added (the config file has changed)",
        ]
    );
}

#[test]
fn what_is_shared_survives_and_another_file_takes_it_back() {
    let file = model();
    let current = changed(&file);
    let mut overlay = Overlay::new(file.node.as_str());
    assert_eq!(overlay.note_change(&file, &current, 1_000), 4);
    let json = Saved::of(&file, &current).with_shared(&overlay).to_json();
    let saved = Saved::from_json(&json.unwrap()).unwrap();
    let same = saved.shared(&file, 2_000);
    assert_eq!(same.entries(), overlay.entries());
    let mut new = model();
    new.services.get_mut("web").unwrap().idle_timeout_s = 30;
    let laid = saved.shared(&new, 2_000).model(&new, &current).model;
    let web = &laid.services["web"];
    assert_eq!((web.idle_timeout_s, web.backends.len()), (30, 2));
    assert_eq!(web.backends["web2"].weight, 100);
    assert_eq!(web.backends["web1"].admin, AdminState::Drain);
    // Of a node that was on its own, nothing is.
    let alone = Saved::of(&file, &current).to_json().unwrap();
    assert!(!String::from_utf8(alone.clone()).unwrap().contains("shared"));
    assert!(
        Saved::from_json(&alone)
            .unwrap()
            .shared(&file, 1)
            .is_empty()
    );
}

#[test]
fn what_does_not_fit_the_node_any_more_is_dropped_with_the_reason() {
    let file = model();
    let mut smaller = model();
    smaller.limits.backends = 2;
    let resumed = saved(&file, &changed(&file)).resume(smaller);
    let web = &resumed.model.services["web"];
    assert_eq!(web.backends.len(), 2);
    assert_eq!(web.backends["web1"].admin, AdminState::Drain);
    assert!(
        resumed.dropped[0].contains("3 backends, and room for 2"),
        "{:?}",
        resumed.dropped
    );
}

#[test]
fn what_is_no_saved_state_is_told_from_what_a_later_version_wrote() {
    for text in [
        "",
        "{",
        "[]",
        "{\"format\": 1}",
        "{\"format\": 1, \"file\": [7]}",
    ] {
        let error = Saved::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, SavedError::Damaged(_)), "{text}: {error}");
    }
    let later = b"{\"format\": 2, \"services\": {}}";
    let error = Saved::from_json(later).unwrap_err().to_string();
    assert!(error.contains("a later lbd wrote it"), "{error}");
    let wrong = String::from_utf8(Saved::of(&model(), &model()).to_json().unwrap())
        .unwrap()
        .replace("maglev", "magic");
    let error = Saved::from_json(wrong.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown scheduler `magic`"), "{error}");
}
