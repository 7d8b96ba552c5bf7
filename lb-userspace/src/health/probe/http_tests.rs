//! The http check over HTTP/1.1 against good and bad servers.

use super::super::hostile::{
    Server, answers, answers_and_closes, ask, blurts, drips, failure, floods, is_reset, resets,
    timed_out,
};
use crate::health::outcome::FailureKind;
use crate::model::check::{CheckKind, HttpCheck, HttpVersion, StatusRange};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n";

fn check() -> HttpCheck {
    HttpCheck {
        tls: None,
        version: HttpVersion::Http1,
        method: "GET".to_owned(),
        path: "/health?full".to_owned(),
        host: None,
        headers: Vec::new(),
        status: vec![StatusRange {
            first: 200,
            last: 399,
        }],
        body: String::new(),
    }
}

fn wanting(body: &str) -> CheckKind {
    CheckKind::Http(HttpCheck {
        body: body.to_owned(),
        ..check()
    })
}

/// The failure of a check that wants a body, for an answer.
async fn failed(answer: &'static str, body: &str) -> (FailureKind, String) {
    let server = Server::start(move |stream| answers_and_closes(stream, answer)).await;
    failure(&wanting(body), server.target()).await
}

#[tokio::test]
async fn a_request_says_what_the_check_says() {
    let server = Server::start(|stream| answers(stream, OK)).await;
    let host = server.address.to_string();
    let (result, observed) = ask(&CheckKind::Http(check()), server.target()).await;
    assert_eq!((result, observed), (Ok(()), Default::default()));
    let (request, is_reset) = server.ended().await;
    assert_eq!(
        request,
        format!(
            "GET /health?full HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lbd/{}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert!(is_reset, "a reset leaves no TIME_WAIT");

    let server = Server::start(|stream| answers(stream, OK)).await;
    let headers = [("user-agent", "probe"), ("x-key", "a b")];
    let kind = CheckKind::Http(HttpCheck {
        method: "POST".to_owned(),
        host: Some("www.example.com".to_owned()),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..check()
    });
    assert_eq!(ask(&kind, server.target()).await.0, Ok(()));
    assert_eq!(
        server.ended().await.0,
        "POST /health?full HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\n\
         Connection: close\r\nContent-Length: 0\r\nuser-agent: probe\r\nx-key: a b\r\n\r\n"
    );
}

#[tokio::test]
async fn the_status_decides_without_the_body() {
    let server = Server::start(|stream| blurts(stream, "HTTP/1.0 503 Busy\r\n\r\n")).await;
    assert_eq!(
        failure(&CheckKind::Http(check()), server.target()).await,
        (
            FailureKind::Unexpected,
            "HTTP 503 in place of 200-399".to_owned()
        )
    );
    // A body that never comes.
    let begin = "HTTP/1.1 302 Found\r\nContent-Length: 9999\r\n\r\n";
    let server = Server::start(move |stream| answers(stream, begin)).await;
    assert_eq!(
        ask(&CheckKind::Http(check()), server.target()).await.0,
        Ok(())
    );
    assert!(server.ended().await.1);
}

#[tokio::test]
async fn the_body_is_found_whatever_its_framing() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall good",
        "HTTP/1.1 200 OK\r\n\r\nall good, and then closed",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall g\r\n3;x=y\r\nood\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\n\nall good",
    ] {
        let server = Server::start(move |stream| blurts(stream, answer)).await;
        let (result, _) = ask(&wanting("all good"), server.target()).await;
        assert_eq!(result, Ok(()), "{answer}");
    }
}

#[tokio::test]
async fn a_body_without_the_text_is_told() {
    let complete = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndown";
    assert_eq!(
        failed(complete, "up").await,
        (
            FailureKind::Unexpected,
            "no \"up\" in the body, which begins with \"down\"".to_owned()
        )
    );
    assert_eq!(
        failed("HTTP/1.1 204 No Content\r\n\r\n", "up").await,
        (
            FailureKind::Unexpected,
            "no body, where \"up\" is wanted".to_owned()
        )
    );
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\ndown";
    assert_eq!(
        failed(half, "up").await,
        (
            FailureKind::Closed,
            "closed by the server after 4 bytes of the body".to_owned()
        )
    );
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndownoops\r\n";
    assert_eq!(
        failed(chunk, "up").await,
        (
            FailureKind::Protocol,
            "the answer's body has a broken chunk".to_owned()
        )
    );
}

#[tokio::test]
async fn what_is_no_answer_is_told() {
    let closed = |words: &str| (FailureKind::Closed, words.to_owned());
    assert_eq!(
        failed("", "").await,
        closed("closed by the server without an answer")
    );
    assert_eq!(
        failed("HTTP/1.1 200 OK\r\nServer: x\r\n", "").await,
        closed("closed by the server within the headers")
    );
    let server = Server::start(resets).await;
    assert_eq!(
        failure(&wanting(""), server.target()).await,
        closed("reading the answer: connection reset by the server")
    );
    let protocol = |words: &str| (FailureKind::Protocol, words.to_owned());
    assert_eq!(
        failed("SSH-2.0-OpenSSH_9.2p1\r\n", "").await,
        protocol("the answer is no HTTP/1: it begins with \"SSH-2.0-OpenSSH_9.2p1\"")
    );
    assert_eq!(
        failed("HTTP/1.1 2000 OK\r\n\r\n", "").await,
        protocol("the answer is no HTTP/1: it begins with \"HTTP/1.1 2000 OK\"")
    );
    assert_eq!(
        failed("HTTP/1.1 200 OK\r\ncookie\r\n\r\n", "").await,
        protocol("the answer has a broken header \"cookie\"")
    );
}

#[tokio::test]
async fn endless_headers_interim_answers_and_bodies_are_cut_off() {
    let status: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let too_long = "headers of more than 32 KiB";
    for (begin, again, words) in [
        (status, &b"x-header: endless\r\n"[..], too_long),
        (status, &b"xxxxxxxxxxxxxxxxx"[..], too_long),
        (b"HTTP/1.1", &b" "[..], too_long),
        (b"", &b"HTTP/1.1 100 Continue\r\n\r\n"[..], too_long),
        (
            b"HTTP/1.1 200 OK\r\n\r\n",
            &[b'x'; 4096][..],
            "no \"up\" in the body's first 64 KiB",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            &b"1;extended"[..],
            "the answer's body has a broken chunk",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            &b"1\r\nx\r\n"[..],
            "no \"up\" in the body's first 64 KiB",
        ),
    ] {
        let server = Server::start(move |stream| floods(stream, begin, again)).await;
        let (_, reason) = failure(&wanting("up"), server.target()).await;
        // Chunks of one byte take seven times their room.
        let either = [words, "reading the answer: more than 256 KiB"];
        assert!(either.contains(&reason.as_str()), "{reason}, not {words}");
        server.ended().await;
    }
}

#[tokio::test]
async fn drips_and_silence_end_with_the_time_out() {
    let kind = wanting("up");
    let server = Server::start(is_reset).await;
    assert_eq!(
        timed_out(&kind, server.target()).await,
        "waiting for an answer: timed out after 100 ms"
    );
    assert!(server.ended().await);

    let begin = b"HTTP/1.1 200 OK\r\nx: ";
    let server = Server::start(|stream| drips(stream, begin, b"x")).await;
    assert_eq!(
        timed_out(&kind, server.target()).await,
        "waiting for an answer: timed out after 100 ms"
    );
    server.ended().await;

    let begin = b"HTTP/1.1 200 OK\r\n\r\n";
    let server = Server::start(|stream| drips(stream, begin, b"x")).await;
    assert_eq!(
        timed_out(&kind, server.target()).await,
        "reading the body, no \"up\" yet: timed out after 100 ms"
    );
    server.ended().await;
}

#[tokio::test]
async fn a_header_cannot_smuggle_another() {
    let kind = CheckKind::Http(HttpCheck {
        headers: vec![("x".to_owned(), "secret\r\ny: z".to_owned())],
        ..check()
    });
    let server = Server::start(is_reset).await;
    let (kind, reason) = failure(&kind, server.target()).await;
    assert_eq!(kind, FailureKind::Local);
    assert!(!reason.contains("secret"), "{reason}");
}
