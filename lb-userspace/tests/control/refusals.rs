//! Each path with bad input: status, code and field of the refusal, and nothing changed.

use serde_json::{Value, json};

use crate::api::{ask, get, post, with_web};
use crate::fake::{Daemon, FAILING, FULL_MAP};

#[test]
fn bad_fields_of_a_service_are_named() {
    let daemon = with_web();
    let bad = |edit: Value| {
        let mut body = json!({"name": "shop", "vip": "203.0.113.11", "port": 80});
        for (key, value) in edit.as_object().unwrap() {
            body[key] = value.clone();
        }
        post(&daemon, "/v1/services", &body)
    };
    for (edit, field) in [
        (json!({"name": "a b"}), "name"),
        (json!({"name": 5}), "name"),
        (json!({"vip": "203.0.113.300"}), "vip"),
        (json!({"vip": "127.0.0.1"}), "vip"),
        (json!({"port": 65536}), "port"),
        (json!({"port": "80"}), "port"),
        (json!({"protocol": "sctp"}), "protocol"),
        (json!({"scheduler": "random"}), "scheduler"),
        (json!({"forward": "tunnel"}), "forward"),
        (json!({"idle_timeout_s": 0}), "idle_timeout_s"),
        (json!({"ring_slots": 7}), "ring_slots"),
        (json!({"colour": "red"}), "colour"),
        (json!({"backends": [{"address": "::1"}]}), "address"),
        (
            json!({"backends": [{"adress": "10.0.0.1"}]}),
            "backends[0].adress",
        ),
    ] {
        let answer = bad(edit);
        assert_eq!(
            answer.refusal(),
            (400, "invalid", Some(field)),
            "{}",
            answer.message()
        );
    }
    assert_eq!(
        bad(json!({"name": "web"})).refusal(),
        (409, "conflict", Some("name"))
    );
    assert_eq!(
        bad(json!({"vip": "203.0.113.10"})).refusal(),
        (409, "conflict", Some("vip"))
    );
    assert_eq!(
        get(&daemon, "/v1/services").body["services"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn several_mistakes_are_told_at_once() {
    let shop = json!({"name": "a b", "vip": "203.0.113.11", "port": -1, "ring_slots": 7});
    let answer = post(&Daemon::start(), "/v1/services", &shop);
    assert_eq!(answer.message().lines().count(), 3, "{}", answer.message());
}

#[test]
fn bad_fields_of_a_backend_are_named() {
    let daemon = with_web();
    for (body, status, code, field) in [
        (
            json!({"address": "nowhere"}),
            400,
            "invalid",
            Some("address"),
        ),
        (
            json!({"address": "2001:db8::1"}),
            400,
            "invalid",
            Some("address"),
        ),
        (
            json!({"address": "10.0.0.12", "port": 8080}),
            400,
            "invalid",
            Some("port"),
        ),
        (
            json!({"address": "10.0.0.12", "weight": 0}),
            400,
            "invalid",
            Some("weight"),
        ),
        (
            json!({"address": "10.0.0.12", "weight": 1e3}),
            400,
            "invalid",
            Some("weight"),
        ),
        (
            json!({"address": "10.0.0.12", "name": "../x"}),
            400,
            "invalid",
            Some("name"),
        ),
        (
            json!({"address": "10.0.0.12", "name": "web1"}),
            409,
            "conflict",
            Some("name"),
        ),
        (
            json!({"address": "10.0.0.11"}),
            409,
            "conflict",
            Some("address"),
        ),
        (
            json!({"address": "203.0.113.10"}),
            409,
            "conflict",
            Some("address"),
        ),
        (json!({}), 400, "invalid", None),
    ] {
        let answer = post(&daemon, "/v1/services/web/backends", &body);
        assert_eq!(
            answer.refusal(),
            (status, code, field),
            "{body}: {}",
            answer.message()
        );
    }
    let path = "/v1/services/web/backends/web1";
    for body in [
        r#"{"weight": 0}"#,
        r#"{"weight": 1001}"#,
        r#"{"weight": -1}"#,
        r#"{"weight": "3"}"#,
    ] {
        let answer = ask(&daemon, "PATCH", path, body);
        assert_eq!(answer.refusal(), (400, "invalid", Some("weight")), "{body}");
    }
    assert_eq!(get(&daemon, path).body["weight"], 100);
}

#[test]
fn what_is_not_there_is_404_with_a_suggestion() {
    let daemon = with_web();
    for (method, path, body) in [
        ("GET", "/v1/services/wbe", ""),
        ("DELETE", "/v1/services/wbe", ""),
        ("GET", "/v1/services/wbe/backends", ""),
        (
            "POST",
            "/v1/services/wbe/backends",
            r#"{"address": "10.0.0.12"}"#,
        ),
        ("GET", "/v1/services/wbe/backends/web1", ""),
        (
            "PATCH",
            "/v1/services/wbe/backends/web1",
            r#"{"weight": 1}"#,
        ),
        ("DELETE", "/v1/services/wbe/backends/web1", ""),
    ] {
        let answer = ask(&daemon, method, path, body);
        assert_eq!(
            answer.refusal(),
            (404, "not_found", None),
            "{method} {path}"
        );
        assert!(
            answer.message().contains("did you mean `web`?"),
            "{}",
            answer.message()
        );
    }
    for (method, body) in [("GET", ""), ("PATCH", r#"{"weight": 1}"#), ("DELETE", "")] {
        let answer = ask(&daemon, method, "/v1/services/web/backends/web2", body);
        assert_eq!(answer.refusal(), (404, "not_found", None), "{method}");
        assert!(
            answer.message().contains("did you mean `web1`?"),
            "{}",
            answer.message()
        );
    }
    assert_eq!(
        get(&daemon, "/v2/status").refusal(),
        (404, "not_found", None)
    );
    let method = ask(&daemon, "PUT", "/v1/services", "");
    assert_eq!(method.refusal(), (405, "method_not_allowed", None));
    assert_eq!(
        get(&daemon, "/v1/services/%ff").refusal(),
        (400, "invalid", None)
    );
}

#[test]
fn bodies_that_are_no_json_or_too_large_are_refused() {
    let daemon = with_web();
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{} {}",
        "{\"name\": \"a\"",
        "name=web",
    ] {
        let answer = ask(&daemon, "POST", "/v1/services", body);
        assert_eq!(answer.refusal(), (400, "invalid", None), "{body}");
    }
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(256 * 1024));
    let answer = ask(&daemon, "POST", "/v1/services", &huge);
    assert_eq!(answer.refusal(), (413, "body_too_large", None));
}

#[test]
fn full_maps_limits_and_a_failing_kernel_have_codes_of_their_own() {
    let daemon = with_web();
    let named = |name: &str, vip: &str| {
        post(
            &daemon,
            "/v1/services",
            &json!({"name": name, "vip": vip, "port": 80}),
        )
    };
    let answer = named(FULL_MAP, "203.0.113.11");
    assert_eq!(answer.refusal(), (507, "map_full", None));
    assert!(
        answer.message().contains("map RINGS"),
        "{}",
        answer.message()
    );
    assert!(
        answer.message().contains("raise `limits.ring_blocks`"),
        "{}",
        answer.message()
    );
    assert_eq!(
        named(FAILING, "203.0.113.11").refusal(),
        (500, "failed", None)
    );

    assert_eq!(named("two", "203.0.113.12").status, 201);
    assert_eq!(named("three", "203.0.113.13").status, 201);
    let answer = named("four", "203.0.113.14");
    assert_eq!(answer.refusal(), (507, "limit_reached", None));
    assert!(
        answer.message().contains("raise `limits.services`"),
        "{}",
        answer.message()
    );
}

#[test]
fn a_name_in_the_path_that_no_name_can_be_is_refused_unread() {
    let daemon = with_web();
    let (longest, long) = ("a".repeat(63), "a".repeat(60_000));
    for (method, body) in [("GET", ""), ("DELETE", "")] {
        let answer = ask(&daemon, method, &format!("/v1/services/{longest}"), body);
        assert_eq!(answer.refusal(), (404, "not_found", None), "{method}");
        for (path, field) in [
            (format!("/v1/services/{longest}a"), "service"),
            (format!("/v1/services/{long}"), "service"),
            (format!("/v1/services/web/backends/{long}"), "backend"),
        ] {
            let answer = ask(&daemon, method, &path, body);
            assert_eq!(answer.refusal(), (400, "invalid", Some(field)), "{method}");
            assert!(answer.message().len() < 200, "{}", answer.message());
        }
    }
}
