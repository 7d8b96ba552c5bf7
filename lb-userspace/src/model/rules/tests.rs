//! Each rule, broken once. Places in the file are tested with the config loader.

use super::*;
use crate::model::draft::{BackendDraft, InterfaceDraft};
use crate::model::{ForwardMode, Policies, Protocol, Scheduler, UdpFlow};

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn backend(address: &str) -> BackendDraft {
    BackendDraft {
        address: Field::Given(ip(address)),
        ..BackendDraft::default()
    }
}

fn service(name: &str, vip: &str, backends: &[&str]) -> ServiceDraft {
    ServiceDraft {
        name: Field::Given(name.to_owned()),
        vip: Field::Given(ip(vip)),
        port: Field::Given(80),
        backends: backends.iter().map(|address| backend(address)).collect(),
        ..ServiceDraft::default()
    }
}

fn nat(mut service: ServiceDraft) -> ServiceDraft {
    service.forward = Field::Given(ForwardMode::Nat);
    service
}

fn draft(services: Vec<ServiceDraft>) -> Draft {
    Draft {
        node: Field::Given("lb1".to_owned()),
        services,
        ..Draft::default()
    }
}

fn web() -> ServiceDraft {
    service("web", "203.0.113.10", &["10.0.0.11", "10.0.0.12"])
}

/// The one error of a draft, after its kind and key were compared.
#[track_caller]
fn error(draft: &Draft, kind: Kind, key: Option<&str>) -> Problem {
    let checked = check(draft);
    assert_eq!(checked.model, None);
    let [error] = checked.errors.as_slice() else {
        panic!("expected one error: {:#?}", checked.errors);
    };
    assert_eq!((error.kind, error.place.key), (kind, key));
    error.clone()
}

/// Breaks the first backend of `web`.
#[track_caller]
fn broken_backend(key: &str, kind: Kind, edit: impl FnOnce(&mut BackendDraft)) -> String {
    let mut web = web();
    edit(&mut web.backends[0]);
    error(&draft(vec![web]), kind, Some(key)).to_string()
}

/// Breaks `web`.
#[track_caller]
fn broken_service(key: &str, kind: Kind, edit: impl FnOnce(&mut ServiceDraft)) -> String {
    let mut web = web();
    edit(&mut web);
    error(&draft(vec![web]), kind, Some(key)).to_string()
}

#[test]
fn a_plain_draft_becomes_a_model_with_every_default() {
    let checked = check(&draft(vec![web()]));
    assert_eq!((checked.errors, checked.warnings), (vec![], vec![]));
    let model = checked.model.unwrap();
    assert!(model.manage_vips);
    let web = &model.services["web"];
    assert_eq!(web.protocol, Protocol::Tcp);
    assert_eq!(web.scheduler, Scheduler::Maglev);
    assert_eq!(web.forward, ForwardMode::Dsr);
    assert_eq!((web.idle_timeout_s, web.ring_slots), (900, 16_381));
    let web1 = &web.backends["10.0.0.11"];
    assert_eq!((web1.port, web1.weight, web1.backup), (80, 100, 0));
    assert_eq!(web.policies, Policies::default());
}

#[test]
fn a_model_is_its_own_draft() {
    let model = check(&draft(vec![web()])).model.unwrap();
    let again = check(&Draft::from(&model));
    assert_eq!(again.model, Some(model));
}

#[test]
fn slow_start_and_backup_groups_have_their_ranges() {
    for seconds in [-1, 3601] {
        let text = broken_service("slow_start", Kind::Invalid, |web| {
            web.policies.slow_start_s = Field::Given(seconds);
        });
        let expected = format!(
            "service `web`: slow_start {seconds} is not in 0 to 3600 seconds (0 means off)"
        );
        assert_eq!(text, expected);
    }
    let text = broken_backend("backup", Kind::Invalid, |backend| {
        backend.backup = Field::Given(10);
    });
    assert!(
        text.ends_with("backup 10 is not in 0 to 9 (0 means no backup)"),
        "{text}"
    );
}

#[test]
fn flow_is_for_udp_and_hash_for_maglev() {
    let with = |protocol, scheduler, flow| {
        let mut web = web();
        web.protocol = Field::Given(protocol);
        web.scheduler = Field::Given(scheduler);
        web.policies.flow = Field::Given(flow);
        draft(vec![web])
    };
    for (scheduler, flow) in [
        (Scheduler::Maglev, UdpFlow::Hash),
        (Scheduler::Maglev, UdpFlow::Pinned),
        (Scheduler::RoundRobin, UdpFlow::Pinned),
    ] {
        let checked = check(&with(Protocol::Udp, scheduler, flow));
        let model = checked.model.unwrap();
        assert_eq!(model.services["web"].policies.flow, flow);
        assert_eq!(check(&Draft::from(&model)).model, Some(model));
    }
    let wrong = [
        (
            Protocol::Tcp,
            Scheduler::Maglev,
            UdpFlow::Pinned,
            "protocol = \"udp\"",
        ),
        (
            Protocol::Udp,
            Scheduler::RoundRobin,
            UdpFlow::Hash,
            "scheduler = \"maglev\"",
        ),
    ];
    for (protocol, scheduler, flow, way_out) in wrong {
        let draft = with(protocol, scheduler, flow);
        let text = error(&draft, Kind::Invalid, Some("flow")).to_string();
        assert!(text.contains(way_out), "{text}");
    }
}

#[test]
fn udp_flows_idle_for_a_minute_by_default() {
    let mut dns = web();
    dns.protocol = Field::Given(Protocol::Udp);
    let model = check(&draft(vec![dns])).model.unwrap();
    assert_eq!(model.services["web"].idle_timeout_s, 60);
}

#[test]
fn default_names_come_from_address_and_remapped_port() {
    let mut v6 = nat(service(
        "v6",
        "2001:db8::10",
        &["2001:db8::1:0:0:11", "::abcd"],
    ));
    v6.backends[0].port = Field::Given(8080);
    let model = check(&draft(vec![v6])).model.unwrap();
    let names: Vec<_> = model.services["v6"].backends.keys().collect();
    assert_eq!(names, ["0--abcd", "2001-db8--1-0-0-11-8080"]);
}

#[test]
fn what_is_required_is_asked_for() {
    let draft = draft(vec![ServiceDraft {
        backends: vec![BackendDraft::default()],
        ..ServiceDraft::default()
    }]);
    let titles: Vec<_> = check(&draft).errors.iter().map(Problem::title).collect();
    assert_eq!(
        titles,
        [
            "service number 1: `name` is missing",
            "service number 1: `vip` is missing",
            "service number 1: `port` is missing",
            "service number 1, backend number 1: `address` is missing",
        ]
    );
}

#[test]
fn what_the_reader_reported_is_not_reported_again() {
    let unreadable = draft(vec![ServiceDraft {
        vip: Field::Unreadable,
        ..web()
    }]);
    let checked = check(&unreadable);
    assert_eq!((checked.model, checked.errors), (None, vec![]));
}

#[test]
fn names_are_short_and_plain() {
    let given = |name: &str| Field::Given(name.to_owned());
    let text = broken_service("name", Kind::Invalid, |web| web.name = given("we b"));
    assert!(text.contains("the name holds ' '"), "{text}");
    let text = broken_backend("name", Kind::Invalid, |web1| web1.name = given("-web1"));
    assert!(text.contains("begins with a sign"), "{text}");
    let text = broken_backend("name", Kind::Invalid, |web1| web1.name = given(""));
    assert!(text.contains("the name is empty"), "{text}");
    let text = broken_service("name", Kind::Invalid, |web| {
        web.name = given(&"n".repeat(64));
    });
    assert!(text.contains("the name has 64 characters"), "{text}");
    broken_service("name", Kind::Invalid, |web| web.name = given(".."));
    let mut longest = web();
    longest.name = given(&"n".repeat(63));
    assert_eq!(check(&draft(vec![longest])).errors, []);
}

#[test]
fn a_name_is_given_once() {
    let twin = service("web", "203.0.113.11", &["10.0.0.11"]);
    let twins = error(&draft(vec![web(), twin]), Kind::Conflict, Some("name"));
    assert_eq!(twins.other, Some(Section::Service(0).key("name")));
    let text = broken_backend("name", Kind::Conflict, |web1| {
        web1.name = Field::Given("10.0.0.12".to_owned());
    });
    assert!(text.contains("the name is taken in this service"), "{text}");
}

#[test]
fn a_vip_endpoint_belongs_to_one_service() {
    let twin = service("shop", "203.0.113.10", &["10.0.0.13"]);
    let text = error(
        &draft(vec![web(), twin.clone()]),
        Kind::Conflict,
        Some("vip"),
    )
    .to_string();
    assert_eq!(
        text,
        "service `shop`: 203.0.113.10:80 tcp belongs to service `web` already"
    );

    let udp = ServiceDraft {
        protocol: Field::Given(Protocol::Udp),
        ..twin.clone()
    };
    let every_port = ServiceDraft {
        name: Field::Given("all".to_owned()),
        port: Field::Given(0),
        ..twin
    };
    assert_eq!(check(&draft(vec![web(), udp, every_port])).errors, []);
}

#[test]
fn addresses_that_cannot_serve_are_refused() {
    for (vip, reason) in [
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.0.0.1", "IPv4"),
        ("fe80::1", "link-local"),
    ] {
        let alone = service("web", vip, &[]);
        let text = error(&draft(vec![alone]), Kind::Invalid, Some("vip")).to_string();
        assert!(text.contains(reason), "{text}");
    }
    let text = broken_backend("address", Kind::Invalid, |web1| {
        *web1 = backend("127.0.0.1");
    });
    assert!(text.contains("loopback"), "{text}");
}

#[test]
fn families_do_not_mix() {
    let text = broken_backend("address", Kind::Invalid, |web1| {
        *web1 = backend("2001:db8::11");
    });
    assert!(
        text.contains("address 2001:db8::11 is IPv6, the VIP 203.0.113.10 is IPv4"),
        "{text}"
    );
}

#[test]
fn weights_have_a_range_and_zero_has_an_answer() {
    let weighing = |weight| {
        broken_backend("weight", Kind::Invalid, |web1| {
            web1.weight = Field::Given(weight);
        })
    };
    assert!(weighing(0).contains("remove it"));
    assert!(weighing(1001).contains("weight 1001 is not in 1 to 1000"));
    assert!(weighing(-5).contains("weight -5 is not in 1 to 1000"));
    assert!(weighing(i64::MAX).contains("is not in 1 to 1000"));
}

#[test]
fn ports_are_remapped_with_nat_only_and_never_under_every_port() {
    let with_port = |service: ServiceDraft, port| {
        let mut service = service;
        service.backends[0].port = Field::Given(port);
        draft(vec![service])
    };
    let text = |draft: &Draft| error(draft, Kind::Invalid, Some("port")).to_string();
    assert!(text(&with_port(web(), 8080)).contains("DSR rewrites no port"));
    assert!(text(&with_port(nat(web()), 0)).contains("port 0 is for a service with port 0 only"));
    assert!(text(&with_port(nat(web()), 70_000)).contains("70000 is not in 1 to 65535"));
    let every_port = ServiceDraft {
        port: Field::Given(0),
        ..nat(web())
    };
    assert!(text(&with_port(every_port, 8080)).contains("takes every port"));
    assert_eq!(check(&with_port(nat(web()), 8080)).errors, []);
}

#[test]
fn a_backend_is_no_vip() {
    let shop = service("shop", "203.0.113.11", &["203.0.113.10"]);
    let text = error(&draft(vec![web(), shop]), Kind::Conflict, Some("address")).to_string();
    assert!(
        text.contains("its address is the VIP of service `web`"),
        "{text}"
    );
}

#[test]
fn a_backend_endpoint_occurs_once_in_a_service() {
    let text = broken_backend("address", Kind::Conflict, |web1| {
        *web1 = backend("10.0.0.12");
    });
    assert!(
        text.contains("10.0.0.12:80 is in this service already"),
        "{text}"
    );
    let mut remapped = nat(web());
    remapped.backends[0] = backend("10.0.0.12");
    remapped.backends[0].port = Field::Given(8080);
    assert_eq!(check(&draft(vec![remapped])).errors, []);
}

#[test]
fn a_nat_reply_leads_to_one_service() {
    let shop = service("shop", "203.0.113.11", &["10.0.0.11"]);
    let ambiguous = draft(vec![nat(web()), nat(shop.clone())]);
    let text = error(&ambiguous, Kind::Conflict, Some("address")).to_string();
    assert!(
        text.contains("10.0.0.11:80 tcp is a NAT backend of service `web` already"),
        "{text}"
    );

    let every_port = ServiceDraft {
        port: Field::Given(0),
        ..nat(shop.clone())
    };
    error(
        &draft(vec![nat(web()), every_port.clone()]),
        Kind::Conflict,
        Some("address"),
    );
    error(
        &draft(vec![every_port, nat(web())]),
        Kind::Conflict,
        Some("address"),
    );

    let mut other_port = nat(shop.clone());
    other_port.backends[0].port = Field::Given(8081);
    let udp = ServiceDraft {
        protocol: Field::Given(Protocol::Udp),
        ..nat(shop.clone())
    };
    for unambiguous in [other_port, udp, shop] {
        assert_eq!(check(&draft(vec![nat(web()), unambiguous])).errors, []);
    }
}

#[test]
fn numbers_of_a_service_have_ranges() {
    let text = broken_service("port", Kind::Invalid, |web| web.port = Field::Given(65_536));
    assert!(text.contains("port 65536 is not in 0 to 65535"), "{text}");
    let idle = |seconds| {
        broken_service("idle_timeout", Kind::Invalid, |web| {
            web.idle_timeout_s = Field::Given(seconds);
        })
    };
    assert!(idle(0).contains("idle_timeout 0 is not in 1 to 604800 seconds"));
    assert!(idle(604_801).contains("is not in 1 to 604800 seconds"));
    let text = broken_service("ring_slots", Kind::Invalid, |web| {
        web.ring_slots = Field::Given(1000);
    });
    assert!(
        text.contains("ring_slots 1000 is neither 16381 nor 65521"),
        "{text}"
    );
}

#[test]
fn interfaces_are_named_once_and_possibly() {
    let with = |names: &[&str]| Draft {
        interfaces: names
            .iter()
            .map(|name| InterfaceDraft {
                name: Field::Given((*name).to_owned()),
                ..InterfaceDraft::default()
            })
            .collect(),
        ..draft(vec![web()])
    };
    let twice = error(
        &with(&["eth0", "eth1", "eth0"]),
        Kind::Conflict,
        Some("name"),
    );
    assert_eq!(twice.place.section, Section::Interface(2));
    assert_eq!(twice.other, Some(Section::Interface(0).key("name")));
    for name in ["", "interface-number-0", "a/b", "a b", ".."] {
        error(&with(&[name]), Kind::Invalid, Some("name"));
    }
    assert_eq!(check(&with(&["exactly15bytes-"])).errors, []);
}

#[test]
fn limits_have_ranges() {
    type Set = fn(&mut Draft, Field<i64>);
    let cases: [(&str, i64, i64, Set); 4] = [
        ("services", 1, 16_383, |draft, value| {
            draft.limits.services = value;
        }),
        ("backends", 1, 32_767, |draft, value| {
            draft.limits.backends = value;
        }),
        ("ring_blocks", 8, 65_536, |draft, value| {
            draft.limits.ring_blocks = value;
        }),
        ("flows", 1_024, 67_108_864, |draft, value| {
            draft.limits.flows = value;
        }),
    ];
    for (key, low, high, set) in cases {
        let with = |value| {
            let mut draft = draft(vec![]);
            set(&mut draft, Field::Given(value));
            draft
        };
        for value in [low - 1, high + 1] {
            error(&with(value), Kind::Invalid, Some(key));
        }
        for value in [low, high] {
            assert_eq!(check(&with(value)).errors, []);
        }
    }
}

#[test]
fn more_than_the_limits_is_refused_and_names_the_setting() {
    let mut full = draft(vec![web(), service("shop", "203.0.113.11", &["10.0.0.13"])]);
    full.limits.services = Field::Given(1);
    let text = error(&full, Kind::Full, Some("services")).to_string();
    assert!(text.contains("2 services, and room for 1"), "{text}");
    assert!(text.contains("raise `limits.services`"), "{text}");
    full.limits.services = Field::Absent;
    full.limits.backends = Field::Given(2);
    let text = error(&full, Kind::Full, Some("backends")).to_string();
    assert!(text.contains("3 backends, and room for 2"), "{text}");
}

fn many(count: usize) -> ServiceDraft {
    let mut many = service("many", "203.0.113.10", &[]);
    many.backends = (0..count)
        .map(|n| backend(&format!("10.1.{}.{}", n / 256, n % 256)))
        .collect();
    many
}

#[test]
fn a_service_has_at_most_2048_backends() {
    let mut large = many(2049);
    large.scheduler = Field::Given(Scheduler::RoundRobin);
    error(&draft(vec![large]), Kind::Full, None);
}

#[test]
fn what_is_legal_but_odd_gets_a_warning() {
    let warning = |service: ServiceDraft| {
        let checked = check(&draft(vec![service]));
        assert!(checked.model.is_some(), "{:?}", checked.errors);
        assert_eq!(checked.warnings.len(), 1, "{:?}", checked.warnings);
        checked.warnings[0].to_string()
    };
    let text = warning(service("web", "203.0.113.10", &[]));
    assert!(text.contains("no_backend"), "{text}");
    assert!(text.contains("lbctl backend add web ADDRESS"), "{text}");

    let text = warning(many(164));
    assert!(
        text.contains("164 backends in a ring of 16381 slots"),
        "{text}"
    );
    assert!(text.contains("set ring_slots = 65521"), "{text}");
    assert_eq!(check(&draft(vec![many(163)])).warnings, []);

    let mut ringless = web();
    ringless.scheduler = Field::Given(Scheduler::RoundRobin);
    ringless.ring_slots = Field::Given(65_521);
    assert!(warning(ringless).contains("no effect"));
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_draft() {
    let mut broken = web();
    broken.port = Field::Given(-1);
    broken.backends[1].weight = Field::Given(0);
    broken.backends[0].address = Field::Given(ip("::1"));
    let mut draft = draft(vec![broken]);
    draft.limits.flows = Field::Given(1);
    let keys: Vec<_> = check(&draft)
        .errors
        .iter()
        .map(|error| error.place.key)
        .collect();
    assert_eq!(
        keys,
        [Some("flows"), Some("port"), Some("address"), Some("weight")]
    );
}
