//! Against applications with prepared answers, and hostile ones.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::hostile::{Server, ask};
use crate::health::probe::rigged;
use crate::model::check::{CheckKind, FastcgiCheck, StatusRange};

fn ping() -> CheckKind {
    CheckKind::Fastcgi(FastcgiCheck {
        path: "/ping?full".to_owned(),
        status: vec![StatusRange {
            first: 200,
            last: 299,
        }],
        body: "pong".to_owned(),
    })
}

fn record(kind: u8, content: &str, padding: u8) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let header = [1, kind, 0, 1, high, low, padding, 0];
    let padding = vec![0; usize::from(padding)];
    [&header, content.as_bytes(), &padding].concat()
}

fn end(protocol_status: u8) -> Vec<u8> {
    let content = [0, 0, 0, 0, protocol_status, 0, 0, 0];
    record(3, std::str::from_utf8(&content).expect("ASCII"), 0)
}

/// Reads the whole request, whose last record is an empty STDIN; answers; closes.
async fn against(answer: Vec<Vec<u8>>) -> Result<(), Failure> {
    let server = Server::start(move |mut stream| {
        let answer = answer.concat();
        async move {
            let mut request = Vec::new();
            while !request.ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]) {
                let read = stream.read_buf(&mut request).await.expect("a request");
                assert_ne!(read, 0, "the request ends too early");
            }
            for wanted in [
                &b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00"[..],
                b"\x0b\x05SCRIPT_NAME/ping",
                b"\x0f\x05SCRIPT_FILENAME/ping",
                b"\x0c\x04QUERY_STRINGfull",
                b"\x0e\x03REQUEST_METHODGET",
            ] {
                let is_there = request.windows(wanted.len()).any(|part| part == wanted);
                assert!(is_there, "{}", String::from_utf8_lossy(wanted));
            }
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_buf(&mut request).await;
        }
    })
    .await;
    let (result, _) = ask(&ping(), server.target()).await;
    server.ended().await;
    result
}

const PONG: &str = "Content-type: text/plain\r\n\r\npong";

#[tokio::test]
async fn a_pong_is_up_in_whatever_pieces_it_comes() {
    assert_eq!(against(vec![record(6, PONG, 0), end(0)]).await, Ok(()));
    let (head, tail) = PONG.split_at(30);
    let pieces = vec![
        record(6, head, 7),
        record(6, tail, 3),
        record(6, "", 0),
        end(0),
    ];
    assert_eq!(against(pieces).await, Ok(()));
}

#[tokio::test]
async fn the_status_decides_and_the_error_channel_is_quoted() {
    let failure = against(vec![
        record(7, "Primary script unknown", 2),
        record(
            6,
            "Status: 404 Not Found\r\nX: y\r\n\r\nFile not found.\n",
            0,
        ),
        end(0),
    ])
    .await
    .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unexpected);
    assert_eq!(
        failure.reason,
        "HTTP 404 in place of 200-299; it says \"Primary script unknown\""
    );
}

#[tokio::test]
async fn the_body_is_looked_through() {
    let failure = against(vec![record(6, "X: y\n\nping", 0), end(0)])
        .await
        .unwrap_err();
    assert_eq!(
        failure.reason,
        "no \"pong\" in the body, which begins with \"ping\""
    );
}

#[tokio::test]
async fn refusals_and_broken_answers_are_told() {
    for (answer, kind) in [
        (vec![end(2)], FailureKind::Unexpected),
        (vec![end(3)], FailureKind::Unexpected),
        (vec![end(9)], FailureKind::Protocol),
        (vec![end(0)], FailureKind::Protocol),
        (
            vec![record(6, "no headers", 0), end(0)],
            FailureKind::Protocol,
        ),
        (
            vec![record(6, "Status: ok\r\n\r\n", 0), end(0)],
            FailureKind::Protocol,
        ),
        (vec![record(6, PONG, 0)], FailureKind::Closed),
        (
            vec![b"\x01\x06\x00\x01\xff\xff\x00\x00short".to_vec()],
            FailureKind::Closed,
        ),
        (
            vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
            FailureKind::Protocol,
        ),
        (vec![], FailureKind::Closed),
    ] {
        let failure = against(answer).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_read_to_its_bound() {
    let server = Server::start(|mut stream| async move {
        let _ = stream.read_buf(&mut Vec::new()).await;
        let mut answer = record(6, "X: y\r\n\r\n", 0);
        while stream.write_all(&answer).await.is_ok() {
            answer = record(6, &"x".repeat(60_000), 255);
        }
    })
    .await;
    let failure = ask(&ping(), server.target()).await.0.unwrap_err();
    assert!(failure.reason.starts_with("no \"pong\""), "{failure}");
}

#[tokio::test]
async fn hostile_servers_cost_a_deadline_and_nothing_more() {
    rigged::survives(&ping()).await;
}
