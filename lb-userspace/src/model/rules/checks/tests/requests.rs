//! What is asked, and what is expected.

use super::*;

#[test]
fn requests_are_such_as_can_be_sent() {
    let with = |edit: fn(&mut WrittenCheck)| {
        let mut check = written(CheckType::Https);
        edit(&mut check);
        refused(check)
    };
    fn header(name: &str, value: &str) -> Field<Vec<(String, String)>> {
        given(vec![(name.to_owned(), value.to_owned())])
    }
    let cases: [Case; 12] = [
        (
            |check| check.method = text("GE T"),
            "method",
            "asks for no page",
        ),
        (
            |check| check.method = text("CONNECT"),
            "method",
            "asks for no page",
        ),
        (
            |check| check.path = text("health"),
            "path",
            "does not begin with a slash",
        ),
        (
            |check| check.path = text("/a b"),
            "path",
            "holds what no request may hold",
        ),
        (|check| check.path = text("/a\r\nX: y"), "path", "holds"),
        (|check| check.host = text("a/b"), "host", "is no host"),
        (|check| check.host = text(""), "host", "host is empty"),
        (
            |check| check.headers = header("Host", "x"),
            "headers",
            "the check has a key `host`",
        ),
        (
            |check| check.headers = header("A B", "x"),
            "headers",
            "cannot be the name of a header",
        ),
        (
            |check| check.headers = header("X-A", "a\nb"),
            "headers",
            "a value that no request may hold",
        ),
        (
            |check| check.tls_name = text("a:443"),
            "tls_name",
            "is no host's name",
        ),
        (
            |check| check.min_valid_days = given(-1),
            "min_valid_days",
            "is not in 0 to 3650",
        ),
    ];
    for (edit, key, message) in cases {
        let checked = verdict({
            let mut check = written(CheckType::Https);
            edit(&mut check);
            web(vec![check])
        });
        let errors: Vec<String> = checked.errors.iter().map(ToString::to_string).collect();
        assert!(
            checked.errors.iter().all(|one| one.place.key == Some(key)),
            "{errors:?}"
        );
        assert!(
            errors.iter().any(|one| one.contains(message)),
            "{message}: {errors:?}"
        );
    }
    let (key, text) = with(|check| {
        check.method = text("HEAD");
        check.body = text("ok");
    });
    assert_eq!(
        (key, text.as_str()),
        (Some("body"), "the answer to HEAD has no body")
    );
}

#[test]
fn names_of_headers_are_in_lower_case_and_a_password_among_them_is_noticed() {
    let check = WrittenCheck {
        headers: given(vec![(
            "Authorization".to_owned(),
            "Basic hunter2".to_owned(),
        )]),
        ..written(CheckType::Http)
    };
    let (service, warnings) = good(web(vec![check]));
    let CheckKind::Http(http) = &service.checks[0].kind else {
        panic!("it is HTTP");
    };
    assert_eq!(http.headers[0].0, "authorization");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("stands in the clear") && !warnings[0].contains("hunter2"));
}

#[test]
fn keys_of_tls_are_for_grpc_with_tls() {
    let check = WrittenCheck {
        tls_name: text("api.example"),
        ..written(CheckType::Grpc)
    };
    let (key, text) = refused(check.clone());
    assert_eq!(key, Some("tls_name"));
    assert!(text.contains("set tls = true"), "{text}");
    let CheckKind::Grpc(grpc) = built(WrittenCheck {
        tls: given(true),
        ..check
    })
    .kind
    else {
        panic!("it is gRPC");
    };
    assert_eq!(
        grpc.tls.unwrap().server_name.as_deref(),
        Some("api.example")
    );
}

#[test]
fn authorities_and_no_verification_contradict_each_other() {
    let trust = Trust::Authorities {
        file: "/etc/ca.pem".into(),
        pem: Default::default(),
    };
    let check = WrittenCheck {
        ca: given(trust.clone()),
        ..written(CheckType::Https)
    };
    let CheckKind::Http(http) = built(check.clone()).kind else {
        panic!("https is HTTP");
    };
    assert_eq!(http.tls.unwrap().trust, trust);
    let (key, _) = refused(WrittenCheck {
        verify: given(false),
        ..check
    });
    assert_eq!(key, Some("verify"));
}

#[test]
fn what_dns_is_asked_and_what_is_expected_go_together() {
    let with = |query_type, expect: &str| WrittenCheck {
        query_type,
        expect: text(expect),
        ..valid(CheckType::Dns)
    };
    built(with(Field::Absent, "10.0.0.1"));
    built(with(given(DnsType::Aaaa), "2001:db8::1"));
    for (query_type, expect) in [
        (Field::Absent, "2001:db8::1"),
        (given(DnsType::Aaaa), "10.0.0.1"),
        (given(DnsType::Soa), "10.0.0.1"),
        (Field::Absent, "ok"),
    ] {
        assert_eq!(refused(with(query_type, expect)).0, Some("expect"));
    }
    for name in ["a..b", &"x".repeat(64), &"abc.".repeat(64), "a b"] {
        let check = WrittenCheck {
            name: text(name),
            ..written(CheckType::Dns)
        };
        assert_eq!(refused(check).0, Some("name"), "{name}");
    }
}

#[test]
fn texts_and_lists_have_an_end() {
    let check = WrittenCheck {
        send: text(&"x".repeat(4_097)),
        ..written(CheckType::Tcp)
    };
    assert_eq!(refused(check).1, "send has 4097 bytes; the most is 4096");
    let words = vec!["/bin/true".to_owned(); 65];
    let check = WrittenCheck {
        command: given(words),
        ..written(CheckType::Exec)
    };
    assert_eq!(refused(check).0, Some("command"));
    let nine = (0..9).map(|_| written(CheckType::Tcp)).collect();
    assert!(
        broken(web(nine))
            .1
            .contains("9 checks; a backend has at most 8")
    );
}
