//! HTTP/2 and gRPC health against good and bad servers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::Reason;
use h2::server::SendResponse;
use hyper::body::Bytes;
use hyper::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::super::hostile::{
    PATIENCE, Server, answers, ask, blurts, drips, failure, floods, is_reset, resets, timed_out,
};
use crate::health::outcome::FailureKind;
use crate::model::check::{CheckKind, GrpcCheck, HttpCheck, HttpVersion, StatusRange};

type Reply = SendResponse<Bytes>;

/// Speaks HTTP/2 and lets `reply` answer the one request. Returns its method, authority and path, its
/// headers and its body. What `reply` returns is kept until the connection has ended.
async fn serves<T>(
    stream: TcpStream,
    reply: impl FnOnce(Reply) -> T + Send + 'static,
) -> Option<(String, HeaderMap, Vec<u8>)> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let (request, respond) = connection.accept().await?.ok()?;
    let (head, mut body) = request.into_parts();
    let asked = format!("{} {}", head.method, head.uri);
    let mut sent = Vec::new();
    let read = async {
        while let Some(Ok(part)) = body.data().await {
            sent.extend_from_slice(&part);
        }
        reply(respond)
    };
    // Polling the connection moves the request's body and the answer.
    let end = async { while connection.accept().await.is_some() {} };
    let _kept = tokio::join!(read, end);
    Some((asked, head.headers, sent))
}

fn check(body: &str) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: None,
        version: HttpVersion::Http2,
        method: "GET".to_owned(),
        path: "/health".to_owned(),
        host: Some("web.example".to_owned()),
        headers: vec![("x-key".to_owned(), "value".to_owned())],
        status: vec![StatusRange {
            first: 200,
            last: 299,
        }],
        body: body.to_owned(),
    })
}

fn status(code: u16) -> Response<()> {
    Response::builder().status(code).body(()).expect("a head")
}

fn says(mut reply: Reply, code: u16, body: &'static [u8]) {
    let mut stream = reply.send_response(status(code), false).expect("open");
    stream.send_data(body.into(), true).expect("open");
}

#[tokio::test]
async fn a_request_is_answered() {
    for body in ["", "all good"] {
        let server =
            Server::start(|stream| serves(stream, |reply| says(reply, 200, b"is all good"))).await;
        assert_eq!(ask(&check(body), server.target()).await.0, Ok(()));
        let (asked, headers, sent) = server.ended().await.expect("a request");
        assert_eq!(asked, "GET http://web.example/health");
        assert_eq!(headers["x-key"], "value");
        assert_eq!(sent, b"");
    }
}

#[tokio::test]
async fn wrong_answers_are_told() {
    let server = Server::start(|stream| serves(stream, |reply| says(reply, 503, b""))).await;
    assert_eq!(
        failure(&check(""), server.target()).await,
        (
            FailureKind::Unexpected,
            "HTTP 503 in place of 200-299".to_owned()
        )
    );
    let server = Server::start(|stream| serves(stream, |reply| says(reply, 200, b"down"))).await;
    assert_eq!(
        failure(&check("up"), server.target()).await,
        (
            FailureKind::Unexpected,
            "no \"up\" in the body, which begins with \"down\"".to_owned()
        )
    );
    let flood = |mut reply: Reply| {
        let mut stream = reply.send_response(status(200), false).expect("open");
        stream
            .send_data(vec![b'x'; 1 << 20].into(), true)
            .expect("open");
    };
    let server = Server::start(move |stream| serves(stream, flood)).await;
    assert_eq!(
        failure(&check("up"), server.target()).await,
        (
            FailureKind::Unexpected,
            "no \"up\" in the body's first 64 KiB".to_owned()
        )
    );
    let server = Server::start(|stream| {
        serves(stream, |mut reply| reply.send_reset(Reason::REFUSED_STREAM))
    })
    .await;
    let (kind, reason) = failure(&check(""), server.target()).await;
    assert_eq!(kind, FailureKind::Closed);
    assert!(
        reason.starts_with("the server gave the request up ("),
        "{reason}"
    );
}

#[tokio::test]
async fn endless_headers_are_refused() {
    let long = |mut reply: Reply| {
        let mut head = status(200);
        let value = "x".repeat(60 * 1024).parse().expect("a value");
        head.headers_mut().insert("x-long", value);
        let _ = reply.send_response(head, true);
    };
    let server = Server::start(move |stream| serves(stream, long)).await;
    let (kind, reason) = failure(&check(""), server.target()).await;
    assert_eq!(kind, FailureKind::Protocol, "{reason}");
}

/// Empty frames of a type, with such flags: SETTINGS, PING, CONTINUATION, …
fn frames(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn what_is_no_http2_is_told() {
    let http1 = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    for answer in [
        http1,
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let server = Server::start(move |stream| answers(stream, answer)).await;
        let (kind, reason) = failure(&check(""), server.target()).await;
        assert_eq!(kind, FailureKind::Protocol, "{reason}");
        assert!(reason.starts_with("the answer is no HTTP/2 ("), "{reason}");
    }
    for closes in [
        Server::start(|stream| blurts(stream, "")).await,
        Server::start(resets).await,
    ] {
        let (kind, reason) = failure(&check(""), closes.target()).await;
        assert_eq!(kind, FailureKind::Closed, "{reason}");
    }
}

#[tokio::test]
async fn floods_of_frames_are_bounded_and_drips_end_with_the_time_out() {
    let settings = frames(4, 0, 0, &[]);
    for again in [
        settings.clone(),
        frames(6, 0, 0, &[0; 8]),
        frames(8, 0, 0, &[0, 0, 0, 1]),
        frames(2, 0, 1, &[0, 0, 0, 3, 16]),
        frames(99, 0, 0, &[]),
    ] {
        let first = settings.clone();
        let server = Server::start(|stream| async move {
            floods(stream, &first, &again).await;
        })
        .await;
        let (kind, reason) = failure(&check(""), server.target()).await;
        assert_eq!(kind, FailureKind::Protocol, "{reason}");
        server.ended().await;
    }
    let server = Server::start(is_reset).await;
    assert_eq!(
        timed_out(&check(""), server.target()).await,
        "waiting for an answer: timed out after 100 ms"
    );
    assert!(server.ended().await);
    let server = Server::start(|stream| drips(stream, b"", b"\0\0\0\x63\0\0\0\0\0")).await;
    timed_out(&check(""), server.target()).await;
    server.ended().await;
}

fn grpc(service: &str) -> CheckKind {
    CheckKind::Grpc(GrpcCheck {
        tls: None,
        service: service.to_owned(),
    })
}

fn grpc_head(code: u16) -> Response<()> {
    let mut head = status(code);
    let value = "application/grpc+proto".parse().expect("a value");
    head.headers_mut().insert("content-type", value);
    head
}

/// An answer with a message and trailers.
fn healthy(mut reply: Reply, message: &[u8], grpc_status: &'static str) {
    let mut stream = reply.send_response(grpc_head(200), false).expect("open");
    stream
        .send_data(Bytes::copy_from_slice(message), false)
        .expect("open");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", grpc_status.parse().expect("a value"));
    stream.send_trailers(trailers).expect("open");
}

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

#[tokio::test]
async fn a_serving_grpc_server_is_up() {
    let server = Server::start(|stream| serves(stream, |reply| healthy(reply, SERVING, "0"))).await;
    assert_eq!(ask(&grpc("shop.Cart"), server.target()).await.0, Ok(()));
    let (asked, headers, sent) = server.ended().await.expect("a request");
    assert!(asked.starts_with("POST http://127.0.0.1:"), "{asked}");
    assert!(asked.ends_with("/grpc.health.v1.Health/Check"), "{asked}");
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(headers["te"], "trailers");
    assert_eq!(sent, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
}

#[tokio::test]
async fn grpc_servers_that_do_not_serve_are_told() {
    let unexpected = |words: &str| (FailureKind::Unexpected, words.to_owned());
    let broken = || {
        let words = "the answer is no message of grpc.health.v1";
        (FailureKind::Protocol, words.to_owned())
    };
    for (service, message, status, wanted) in [
        (
            "",
            &[0, 0, 0, 0, 2, 8, 2][..],
            "0",
            unexpected("the server is NOT_SERVING in place of SERVING"),
        ),
        (
            "a",
            &[0, 0, 0, 0, 0],
            "0",
            unexpected("service \"a\" is UNKNOWN in place of SERVING"),
        ),
        (
            "a",
            &[0, 0, 0, 0, 2, 8, 3],
            "0",
            unexpected("service \"a\" is SERVICE_UNKNOWN in place of SERVING"),
        ),
        ("", SERVING, "13", unexpected("gRPC status 13")),
        ("", &[1, 0, 0, 0, 2, 8, 1], "0", broken()),
        ("", &[0, 0, 0, 0, 9, 8, 1], "0", broken()),
        ("", &[], "0", broken()),
        ("", &[0; 5000], "0", broken()),
    ] {
        let server = Server::start(move |stream| {
            serves(stream, move |reply| healthy(reply, message, status))
        })
        .await;
        assert_eq!(failure(&grpc(service), server.target()).await, wanted);
    }
    for (code, grpc_status, wanted) in [
        (
            200,
            "5",
            unexpected("the server knows no service \"a\": \"gone\""),
        ),
        (
            200,
            "12",
            unexpected("the server has no grpc.health.v1.Health: \"gone\""),
        ),
        (
            200,
            "16",
            (
                FailureKind::Access,
                "unauthenticated (gRPC status 16): \"gone\"".to_owned(),
            ),
        ),
        (502, "0", unexpected("HTTP 502 in place of gRPC's 200")),
    ] {
        // Trailers only: one frame of headers says it all.
        let refuse = move |mut reply: Reply| {
            let mut head = grpc_head(code);
            head.headers_mut()
                .insert("grpc-status", grpc_status.parse().expect("a value"));
            head.headers_mut()
                .insert("grpc-message", "gone".parse().expect("a value"));
            reply.send_response(head, true).expect("open");
        };
        let server = Server::start(move |stream| serves(stream, refuse)).await;
        assert_eq!(failure(&grpc("a"), server.target()).await, wanted);
    }
}

#[tokio::test]
async fn a_web_server_is_no_grpc_server() {
    let page = |mut reply: Reply| {
        let mut head = status(200);
        let value = "text/html".parse().expect("a value");
        head.headers_mut().insert("content-type", value);
        let mut stream = reply.send_response(head, false).expect("open");
        stream.send_data(SERVING.into(), true).expect("open");
    };
    let server = Server::start(move |stream| serves(stream, page)).await;
    assert_eq!(
        failure(&grpc(""), server.target()).await,
        (
            FailureKind::Protocol,
            "the answer is no gRPC, but \"text/html\"".to_owned()
        )
    );
}

#[tokio::test]
async fn a_grpc_answer_without_its_end_times_out() {
    let half = |mut reply: Reply| {
        let mut stream = reply.send_response(grpc_head(200), false).expect("open");
        stream
            .send_data(Bytes::from_static(SERVING), false)
            .expect("open");
        stream
    };
    let server = Server::start(move |stream| serves(stream, half)).await;
    assert_eq!(
        timed_out(&grpc(""), server.target()).await,
        "waiting for an answer: timed out after 100 ms"
    );
}

/// A connection that takes the preface, and is found broken by what is sent next. Nothing ever comes.
#[derive(Default)]
struct BreaksOnSending {
    has_sent: bool,
}

impl AsyncRead for BreaksOnSending {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for BreaksOnSending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let was_first = !std::mem::replace(&mut self.has_sent, true);
        Poll::Ready(match was_first {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::ConnectionReset.into()),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_connection_that_breaks_while_the_request_is_sent_is_told_at_once() {
    let (sender, connection) = super::open(Box::new(BreaksOnSending::default()))
        .await
        .expect("the preface is taken");
    let request = super::request("GET", "http", "web.example", "/", &[]).expect("a request");
    let exchange = super::beside(connection, super::send(sender, request, None));
    let ended = tokio::time::timeout(PATIENCE, exchange).await;
    let failure = ended.expect("at once").expect_err("no answer comes");
    assert_eq!(failure.kind, FailureKind::Closed);
    assert_eq!(failure.reason, "HTTP/2: connection reset by the server");
}
