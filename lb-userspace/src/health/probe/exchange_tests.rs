//! The tcp check against good and bad servers.

use super::super::hostile::{
    Server, answers, ask, blurts, drips, failure, floods, is_reset, resets, target, timed_out,
};
use crate::health::outcome::FailureKind;
use crate::model::check::{CheckKind, ExchangeCheck};

fn tcp(send: &str, expect: &str) -> CheckKind {
    CheckKind::Tcp(ExchangeCheck {
        send: send.to_owned(),
        expect: expect.to_owned(),
    })
}

#[tokio::test]
async fn an_accepted_connection_is_enough_and_is_reset() {
    let server = Server::start(is_reset).await;
    let (result, _) = ask(&tcp("", ""), server.target()).await;
    assert_eq!(result, Ok(()));
    assert!(server.ended().await, "a reset leaves no TIME_WAIT");
}

#[tokio::test]
async fn the_answer_has_to_hold_what_is_expected() {
    let server = Server::start(|stream| answers(stream, "+PO")).await;
    let reason = timed_out(&tcp("PING\r\n\r\n", "+PONG"), server.target()).await;
    assert_eq!(
        reason,
        "answer \"+PO\" without \"+PONG\": timed out after 100 ms"
    );

    let server = Server::start(|stream| answers(stream, "+PONG\r\n")).await;
    let (result, _) = ask(&tcp("PING\r\n\r\n", "+PONG"), server.target()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(server.ended().await, ("PING\r\n\r\n".to_owned(), true));
}

#[tokio::test]
async fn who_speaks_first_and_hangs_up_has_answered() {
    for send in ["", "HELO\r\n"] {
        let server = Server::start(|stream| blurts(stream, "220 ready\r\n")).await;
        assert_eq!(ask(&tcp(send, "220"), server.target()).await.0, Ok(()));
    }
}

#[tokio::test]
async fn wrong_and_missing_answers_are_told() {
    let server = Server::start(|stream| blurts(stream, "421 too busy\r\n")).await;
    assert_eq!(
        failure(&tcp("", "220"), server.target()).await,
        (
            FailureKind::Unexpected,
            "answer \"421 too busy\" in place of \"220\"".to_owned()
        )
    );
    let server = Server::start(|stream| blurts(stream, "")).await;
    assert_eq!(
        failure(&tcp("", "220"), server.target()).await,
        (
            FailureKind::Closed,
            "closed by the server without an answer".to_owned()
        )
    );
    let server = Server::start(resets).await;
    assert_eq!(
        failure(&tcp("HELO", "220"), server.target()).await,
        (
            FailureKind::Closed,
            "reading the answer: connection reset by the server".to_owned()
        )
    );
}

#[tokio::test]
async fn a_flood_is_read_no_further_than_the_text_may_be() {
    let server = Server::start(|stream| floods(stream, b"", &[b'x'; 4096])).await;
    let (kind, reason) = failure(&tcp("", "220"), server.target()).await;
    assert_eq!(kind, FailureKind::Unexpected, "{reason}");
    server.ended().await;
}

#[tokio::test]
async fn a_drip_and_silence_end_with_the_time_out() {
    let server = Server::start(|stream| drips(stream, b"", b"x")).await;
    let reason = timed_out(&tcp("", "220"), server.target()).await;
    assert!(
        reason.contains("without \"220\": timed out after 100 ms"),
        "{reason}"
    );
    server.ended().await;

    let server = Server::start(is_reset).await;
    assert_eq!(
        timed_out(&tcp("", "220"), server.target()).await,
        "waiting for an answer: timed out after 100 ms"
    );
    assert!(server.ended().await);
}

#[tokio::test]
async fn nobody_listening_and_a_full_queue_are_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert_eq!(
        failure(&tcp("", ""), target(address)).await,
        (FailureKind::Refused, "connection refused".to_owned())
    );

    // A queue of one that is full: SYNs are dropped.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    socket.listen(0).expect("listens");
    let address = socket
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket());
    let address = address.expect("an address");
    let _fills = std::net::TcpStream::connect(address).expect("room for one");
    assert_eq!(
        timed_out(&tcp("", ""), target(address)).await,
        "connecting: timed out after 100 ms"
    );
}

#[tokio::test]
async fn the_source_address_is_taken() {
    for (own, source) in [("127.0.0.1:0", "127.0.0.7"), ("[::1]:0", "::1")] {
        let listener = std::net::TcpListener::bind(own).expect("a free port");
        let mut from = target(listener.local_addr().expect("an address"));
        let source: std::net::IpAddr = source.parse().expect("an address");
        from.source = Some(source);
        assert_eq!(ask(&tcp("", ""), from).await.0, Ok(()));
        assert_eq!(listener.accept().expect("a connection").1.ip(), source);
    }
    let mut from = target(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
    from.source = Some(std::net::IpAddr::from([192, 0, 2, 1]));
    let (kind, reason) = failure(&tcp("", ""), from).await;
    assert_eq!(kind, FailureKind::Local);
    assert!(
        reason.starts_with("cannot ask from 192.0.2.1: "),
        "{reason}"
    );
}
