//! What a protocol makes of a key that another one takes as it is.

use super::*;
use crate::model::check::HttpVersion;

#[test]
fn http2_has_no_headers_of_connections() {
    for name in ["Keep-Alive", "Proxy-Connection", "TE"] {
        let mut check = written(CheckType::Http);
        check.headers = given(vec![(name.to_owned(), "x".to_owned())]);
        good(web(vec![check.clone()]));
        check.version = given(HttpVersion::Http2);
        let (key, text) = refused(check);
        assert_eq!(key, Some("headers"));
        assert_eq!(
            text,
            format!("HTTP/2 has no header `{name}` (leave it out)")
        );
    }
    for name in ["Connection", "Transfer-Encoding", "Upgrade"] {
        for version in [HttpVersion::Http1, HttpVersion::Http2] {
            let mut check = written(CheckType::Https);
            check.version = given(version);
            check.headers = given(vec![(name.to_owned(), "x".to_owned())]);
            let (_, text) = refused(check);
            assert!(
                text.contains(&format!("the header `{name}` is not for here")),
                "{text}"
            );
        }
    }
}

/// Warnings about a service, each with its key.
fn cautions(service: ServiceDraft) -> Vec<(Option<&'static str>, String)> {
    let checked = verdict(service);
    assert_eq!(checked.errors, []);
    let told = checked.warnings.iter();
    told.map(|one| (one.place.key, one.title())).collect()
}

#[test]
fn a_lag_that_an_idle_redis_exceeds_is_warned_of() {
    let behind = |check_type, lag_s| {
        let mut check = valid(check_type);
        check.max_lag_s = given(lag_s);
        cautions(web(vec![check]))
    };
    let told = behind(CheckType::Redis, 9);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, Some("max_lag"));
    assert!(told[0].1.starts_with(
        "service `web`, check 1 (redis): max_lag 9 s is less than the 10 s at which an idle Redis"
    ));
    assert_eq!(behind(CheckType::Redis, 10), []);
    assert_eq!(behind(CheckType::Mysql, 1), []);
}

#[test]
fn so_is_the_lag_of_readers_that_are_asked_as_redis() {
    let readers = |check_type, lag_s| {
        let mut service = web(vec![valid(check_type)]);
        service.verdict.role = given(Role::Reader);
        service.verdict.max_lag_s = given(lag_s);
        service
    };
    let told = cautions(readers(CheckType::Redis, 0));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].1.starts_with("service `web`: max_lag 0 s is less"),
        "{told:?}"
    );
    assert_eq!(cautions(readers(CheckType::Redis, 10)), []);
    let mut own = readers(CheckType::Mysql, 5);
    assert_eq!(cautions(own.clone()), []);
    own.backends[0].own_checks = Some(vec![draft_of(valid(CheckType::Redis))]);
    assert_eq!(cautions(own).len(), 1);
}
