//! Each rule of checks, broken once. What is read from files is tested with [`crate::model::files`].

mod cautions;
mod databases;
mod requests;

use std::net::IpAddr;

use super::super::{Checked, check as check_draft};
use super::*;
use crate::model::check::{
    Check, CheckKind, CheckMode, DnsType, Role, StatusRange, Timing, Trust, Via,
};
use crate::model::draft::Draft;
use crate::model::{Fit, ForwardMode, OnAllDown, OnRemove, Protocol, Service};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn given<T>(value: T) -> Field<T> {
    Field::Given(value)
}

fn text(text: &str) -> Field<String> {
    given(text.to_owned())
}

fn written(check_type: CheckType) -> WrittenCheck {
    WrittenCheck {
        check_type: given(check_type),
        ..WrittenCheck::default()
    }
}

/// A check of a type with what it requires.
fn valid(check_type: CheckType) -> WrittenCheck {
    let mut check = written(check_type);
    match check_type {
        CheckType::Mysql | CheckType::Postgres => check.user = text("check"),
        CheckType::Udp => check.send = text("ping"),
        CheckType::Dns => check.name = text("www.example.com"),
        CheckType::Exec => check.command = given(vec!["/bin/true".to_owned()]),
        CheckType::Agent => check.port = given(8081),
        _ => {}
    }
    check
}

fn draft_of(check: WrittenCheck) -> CheckDraft {
    CheckDraft::Written(Box::new(check))
}

fn backend(address: &str) -> BackendDraft {
    BackendDraft {
        address: given(ip(address)),
        ..BackendDraft::default()
    }
}

/// Service `web` with `web1` and these checks.
fn web(checks: Vec<WrittenCheck>) -> ServiceDraft {
    ServiceDraft {
        name: text("web"),
        vip: given(ip("203.0.113.10")),
        port: given(80),
        checks: checks.into_iter().map(draft_of).collect(),
        backends: vec![BackendDraft {
            name: text("web1"),
            ..backend("10.0.0.11")
        }],
        ..ServiceDraft::default()
    }
}

fn verdict(service: ServiceDraft) -> Checked {
    check_draft(&Draft {
        node: text("lb1"),
        services: vec![service],
        ..Draft::default()
    })
}

/// The service, and the warnings about it.
#[track_caller]
fn good(service: ServiceDraft) -> (Service, Vec<String>) {
    let checked = verdict(service);
    assert_eq!(checked.errors, []);
    let warnings = checked.warnings.iter().map(ToString::to_string).collect();
    let model = checked.model.unwrap();
    let again = check_draft(&Draft::from(&model));
    assert_eq!(again.model, Some(model.clone()), "a model is its own draft");
    (model.services["web"].clone(), warnings)
}

/// The check that a written one becomes.
#[track_caller]
fn built(check: WrittenCheck) -> Check {
    let (mut service, warnings) = good(web(vec![check]));
    assert_eq!(warnings, [""; 0]);
    service.checks.remove(0)
}

/// The one error of a service: its key, and the text.
#[track_caller]
fn broken(service: ServiceDraft) -> (Option<&'static str>, String) {
    let checked = verdict(service);
    assert_eq!(checked.model, None);
    let [error] = checked.errors.as_slice() else {
        panic!("expected one error: {:#?}", checked.errors);
    };
    (error.place.key, error.to_string())
}

/// The same, of a service with one check.
#[track_caller]
fn refused(check: WrittenCheck) -> (Option<&'static str>, String) {
    let (key, text) = broken(web(vec![check]));
    let text = text.split_once(": ").unwrap().1.to_owned();
    (key, text)
}

/// What breaks a check, the key that is at fault, and (part of) the message.
type Case = (fn(&mut WrittenCheck), &'static str, &'static str);

#[test]
fn every_type_has_a_check_that_is_good_and_keeps_its_type() {
    for check_type in CheckType::ALL {
        let mut service = web(vec![valid(check_type)]);
        if check_type == CheckType::Udp {
            service.protocol = given(Protocol::Udp);
        }
        let (service, warnings) = good(service);
        assert_eq!(warnings, [""; 0]);
        let check = &service.checks[0];
        assert_eq!(check.kind.check_type(), check_type);
        assert_eq!((check.timing, check.via), (Timing::DEFAULT, Via::Direct));
        assert_eq!(service.checks_of(&service.backends["web1"]), service.checks);
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let CheckKind::Http(http) = built(valid(CheckType::Https)).kind else {
        panic!("https is HTTP");
    };
    assert_eq!((http.method.as_str(), http.path.as_str()), ("GET", "/"));
    let status = StatusRange {
        first: 200,
        last: 399,
    };
    assert_eq!(http.status, [status]);
    let tls = http.tls.unwrap();
    assert_eq!((tls.trust, tls.min_valid_days), (Trust::Anybody, 14));
    let CheckKind::Postgres(postgres) = built(valid(CheckType::Postgres)).kind else {
        panic!("it is PostgreSQL");
    };
    assert_eq!(postgres.database, "postgres");
    assert!(!postgres.replication.observe);
    let CheckKind::Fastcgi(fastcgi) = built(valid(CheckType::Fastcgi)).kind else {
        panic!("it is FastCGI");
    };
    assert_eq!(fastcgi.path, "/ping");
    let CheckKind::Dns(dns) = built(valid(CheckType::Dns)).kind else {
        panic!("it is DNS");
    };
    assert!(dns.is_tcp, "the service is");
}

#[test]
fn a_check_needs_its_type_and_what_the_type_cannot_do_without() {
    assert_eq!(
        broken(web(vec![WrittenCheck::default()])),
        (None, "service `web`, check 1: `type` is missing".to_owned())
    );
    let cases = [
        (CheckType::Mysql, "user"),
        (CheckType::Postgres, "user"),
        (CheckType::Dns, "name"),
        (CheckType::Exec, "command"),
    ];
    for (check_type, key) in cases {
        let expected = format!("check 1 ({}): `{key}` is missing", check_type.word());
        let (_, text) = broken(web(vec![written(check_type)]));
        assert!(text.ends_with(&expected), "{text}");
    }
    let mut service = web(vec![written(CheckType::Udp)]);
    service.protocol = given(Protocol::Udp);
    assert!(broken(service).1.ends_with("`send` is missing"));
}

#[test]
fn a_key_of_another_type_says_whose_it_is() {
    let check = WrittenCheck {
        path: text("/"),
        ..valid(CheckType::Mysql)
    };
    assert_eq!(
        refused(check),
        (
            Some("path"),
            "`path` is a key of checks of type http, https, fastcgi, and this one is of type mysql"
                .to_owned()
        )
    );
    // Of each key that a check has written, the table knows the types.
    let all = WrittenCheck {
        interval_ms: Field::Unreadable,
        fast_interval_ms: Field::Unreadable,
        timeout_ms: Field::Unreadable,
        rise: Field::Unreadable,
        fall: Field::Unreadable,
        port: Field::Unreadable,
        source: Field::Unreadable,
        via: Field::Unreadable,
        method: Field::Unreadable,
        path: Field::Unreadable,
        host: Field::Unreadable,
        headers: Field::Unreadable,
        status: Field::Unreadable,
        body: Field::Unreadable,
        version: Field::Unreadable,
        tls: Field::Unreadable,
        tls_name: Field::Unreadable,
        verify: Field::Unreadable,
        ca: Field::Unreadable,
        min_valid_days: Field::Unreadable,
        user: Field::Unreadable,
        password_file: Field::Unreadable,
        password_env: Field::Unreadable,
        database: Field::Unreadable,
        query: Field::Unreadable,
        writable: Field::Unreadable,
        replication: Field::Unreadable,
        max_lag_s: Field::Unreadable,
        gtid: Field::Unreadable,
        grpc_service: Field::Unreadable,
        send: Field::Unreadable,
        expect: Field::Unreadable,
        name: Field::Unreadable,
        query_type: Field::Unreadable,
        command: Field::Unreadable,
        ..written(CheckType::Icmp)
    };
    let keys: Vec<&str> = all.keys().collect();
    let known: Vec<&str> = crate::model::check::KEYS
        .iter()
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(keys, known[1..], "in the same order, but for `type`");
    let refused = verdict(web(vec![all])).errors;
    assert_eq!(
        refused.len(),
        known.len() - 8,
        "icmp has its timing, a source and a way"
    );
}

#[test]
fn intervals_are_in_their_ranges_and_in_order() {
    let with = |edit: fn(&mut WrittenCheck)| {
        let mut check = written(CheckType::Tcp);
        edit(&mut check);
        refused(check)
    };
    let cases: [Case; 7] = [
        (
            |check| check.interval_ms = given(9),
            "interval",
            "interval 9 is not in 10 to 3600000 milliseconds",
        ),
        (
            |check| check.interval_ms = given(3_600_001),
            "interval",
            "interval 3600001 is not in 10 to 3600000 milliseconds",
        ),
        (
            |check| check.timeout_ms = given(0),
            "timeout",
            "timeout 0 is not in 1 to 600000 milliseconds",
        ),
        (
            |check| check.rise = given(0),
            "rise",
            "rise 0 is not in 1 to 100",
        ),
        (
            |check| check.fall = given(101),
            "fall",
            "fall 101 is not in 1 to 100",
        ),
        (
            |check| check.timeout_ms = given(3_000),
            "timeout",
            "timeout 3s is longer than interval 2s: a check would begin before the last one has ended",
        ),
        (
            |check| {
                check.interval_ms = given(500);
                check.fast_interval_ms = given(501);
            },
            "fast_interval",
            "fast_interval 501ms is longer than interval 500ms: it is for the time while in doubt, and \
             may not be slower",
        ),
    ];
    for (edit, key, message) in cases {
        assert_eq!(with(edit), (Some(key), message.to_owned()));
    }
}

#[test]
fn a_short_interval_shortens_what_is_not_written() {
    let check = built(WrittenCheck {
        interval_ms: given(200),
        ..written(CheckType::Tcp)
    });
    let timing = check.timing;
    assert_eq!((timing.fast_interval_ms, timing.timeout_ms), (200, 200));
}

#[test]
fn checks_that_cannot_work_for_the_protocol_are_refused() {
    let with_port = |check: WrittenCheck| WrittenCheck {
        port: given(8080),
        ..check
    };
    let on_udp = |check| {
        let mut service = web(vec![check]);
        service.protocol = given(Protocol::Udp);
        service
    };
    let tcp_only = [
        CheckType::Mysql,
        CheckType::Postgres,
        CheckType::Redis,
        CheckType::Fastcgi,
    ];
    for check_type in tcp_only {
        for check in [valid(check_type), with_port(valid(check_type))] {
            let (key, text) = broken(on_udp(check));
            assert_eq!(key, Some("type"));
            let expected = format!(
                "a check of type {} asks over TCP, and the service is UDP",
                check_type.word()
            );
            assert!(text.contains(&expected), "{text}");
        }
    }
    for check_type in [
        CheckType::Tcp,
        CheckType::Http,
        CheckType::Https,
        CheckType::Grpc,
    ] {
        let (key, text) = broken(on_udp(valid(check_type)));
        assert_eq!(key, Some("type"));
        assert!(
            text.contains("give it the `port` of something there that speaks TCP"),
            "{text}"
        );
        good(on_udp(with_port(valid(check_type))));
    }
    let (key, text) = refused(valid(CheckType::Udp));
    assert_eq!(key, Some("type"));
    assert!(
        text.starts_with("a check of type udp asks over UDP, and the service is TCP"),
        "{text}"
    );
    built(with_port(valid(CheckType::Udp)));
    let (dns, _) = good(on_udp(valid(CheckType::Dns)));
    assert!(matches!(&dns.checks[0].kind, CheckKind::Dns(dns) if !dns.is_tcp));
}

#[test]
fn where_no_port_is_known_one_has_to_be_given() {
    let mut service = web(vec![valid(CheckType::Http)]);
    service.port = given(0);
    assert!(
        broken(service)
            .1
            .ends_with("the service takes every port: `port` is missing")
    );
    let mut service = web(vec![valid(CheckType::Icmp), valid(CheckType::Exec)]);
    service.port = given(0);
    good(service);
    let (_, text) = refused(written(CheckType::Agent));
    assert_eq!(
        text,
        "an agent listens at a port of its own: `port` is missing"
    );
    for port in [0, 65_536] {
        let check = WrittenCheck {
            port: given(port),
            ..written(CheckType::Tcp)
        };
        assert_eq!(refused(check).0, Some("port"));
    }
}

#[test]
fn a_source_is_an_address_that_the_node_may_ask_from() {
    let from = |source: &str| {
        refused(WrittenCheck {
            source: given(ip(source)),
            ..written(CheckType::Tcp)
        })
    };
    for (source, expected) in [
        ("127.0.0.1", "is a loopback address"),
        ("2001:db8::1", "is IPv6, and the backends are IPv4"),
        ("203.0.113.10", "is the VIP"),
    ] {
        let (key, text) = from(source);
        assert_eq!(key, Some("source"));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn the_way_of_the_traffic_is_for_dsr() {
    let check = WrittenCheck {
        via: given(Via::Datapath),
        ..written(CheckType::Tcp)
    };
    assert_eq!(built(check.clone()).via, Via::Datapath);
    let mut service = web(vec![check]);
    service.forward = given(ForwardMode::Nat);
    let (key, text) = broken(service);
    assert_eq!(key, Some("via"));
    assert!(
        text.contains("does not go with forward = \"nat\""),
        "{text}"
    );
}

#[test]
fn a_backends_own_checks_replace_the_services() {
    let mut service = web(vec![valid(CheckType::Tcp)]);
    service.backends[0].own_checks = Some(vec![draft_of(valid(CheckType::Http))]);
    let mut unchecked = backend("10.0.0.12");
    unchecked.checks = given(OwnChecks::None);
    service.backends.push(unchecked);
    service.backends.push(backend("10.0.0.13"));
    service.verdict.check_mode = given(CheckMode::Any);
    let (service, _) = good(service);
    let types = |name: &str| {
        let checks = service.checks_of(&service.backends[name]).iter();
        checks.map(|one| one.kind.check_type()).collect::<Vec<_>>()
    };
    assert_eq!(types("web1"), [CheckType::Http]);
    assert_eq!(types("10.0.0.12"), []);
    assert_eq!(types("10.0.0.13"), [CheckType::Tcp]);
    assert_eq!(service.check_mode, CheckMode::Any);
}

#[test]
fn an_own_list_is_neither_empty_nor_contradicted() {
    let mut service = web(vec![]);
    service.backends[0].own_checks = Some(vec![]);
    let (key, text) = broken(service);
    assert_eq!(key, Some("check"));
    assert!(
        text.contains("write checks = \"none\" to have none"),
        "{text}"
    );
    let mut service = web(vec![]);
    service.backends[0].own_checks = Some(vec![draft_of(valid(CheckType::Tcp))]);
    service.backends[0].checks = given(OwnChecks::None);
    assert_eq!(broken(service).0, Some("checks"));
    let mut service = web(vec![]);
    service.backends[0].own_checks = Some(vec![draft_of(written(CheckType::Dns))]);
    let (_, text) = broken(service);
    assert_eq!(
        text,
        "service `web`, backend `web1`, check 1 (dns): `name` is missing"
    );
}

#[test]
fn what_a_model_has_already_is_not_read_again() {
    // A variable that is not set (any more) is in the way of no other change.
    let (mut service, _) = good(web(vec![WrittenCheck {
        password_env: text("PATH"),
        ..valid(CheckType::Mysql)
    }]));
    let CheckKind::Mysql(mysql) = &mut service.checks[0].kind else {
        panic!("it is MySQL");
    };
    mysql.password = Some(crate::model::check::Secret::Env(
        "LB_NO_SUCH_VARIABLE".to_owned(),
    ));
    let again = verdict(ServiceDraft::from(&service));
    assert_eq!(again.model.unwrap().services["web"], service);
}
