//! A datagram and the answer to it.
//!
//! UDP's silence says nothing: the datagram, or its answer, may have been lost, and some servers do not
//! answer what they do not understand. Only ICMP's "port unreachable" tells a dead server at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::text::{Text, quote};
use super::{Target, connect, wire};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::ExchangeCheck;

/// The largest answer; what is longer is cut off. Unit: bytes.
pub(super) const DATAGRAM_MAX_BYTES: usize = 4096;

/// Sends, and waits for an answer that holds what is expected; without expectation, any will do.
pub(super) async fn udp(
    check: &ExchangeCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let socket = connected(target, observed).await?;
    socket.send(check.send.as_bytes()).await?;
    let mut buffer = [0; DATAGRAM_MAX_BYTES];
    loop {
        let length = socket.receive(&mut buffer).await?;
        let answer = &buffer[..length];
        if Text::new(&check.expect, DATAGRAM_MAX_BYTES).push(answer) {
            return Ok(());
        }
        // It may be late, and to an earlier question from this port; the right one may follow.
        let (answer, expect) = (quote(answer), quote(&check.expect));
        observed.doing = format!("answer {answer} without {expect}").into();
    }
}

/// What a time-out means.
const SILENCE: &str = "no answer, or it was lost (UDP does not tell)";

/// Datagrams to and from one target.
pub(super) enum Datagrams {
    /// By the kernel.
    Kernel(UdpSocket),
    /// To its VIP.
    Wire(wire::Packets),
}

/// Takes datagrams of the target only, and is told when nobody listens there. Notes what a time-out means.
pub(super) async fn connected(
    target: Target,
    observed: &mut Observed,
) -> Result<Datagrams, Failure> {
    match target.vip {
        None => {
            observed.doing = SILENCE.into();
            Ok(Datagrams::Kernel(socket(target).await?))
        }
        Some(vip) => {
            observed.doing = wire::silence(target, vip).into();
            Ok(Datagrams::Wire(wire::datagrams(target, vip).await?))
        }
    }
}

async fn socket(target: Target) -> Result<UdpSocket, Failure> {
    let any: IpAddr = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = target.source.unwrap_or(any);
    let socket = UdpSocket::bind(SocketAddr::new(source, 0))
        .await
        .map_err(|error| {
            let words = format!("cannot ask from {source}: {error}");
            Failure::new(FailureKind::Local, words)
        })?;
    socket
        .connect(target.address)
        .await
        .map_err(|error| failed(&error))?;
    Ok(socket)
}

impl Datagrams {
    /// Sends one datagram.
    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Kernel(socket) => {
                let sent = socket.send(bytes).await;
                sent.map(drop).map_err(|error| failed(&error))
            }
            Self::Wire(packets) => packets.send_or_fail(bytes),
        }
    }

    /// Receives one datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Self::Kernel(socket) => socket.recv(buffer).await.map_err(|error| failed(&error)),
            Self::Wire(packets) => packets.receive_or_fail(buffer).await,
        }
    }
}

/// What the kernel says, mostly on behalf of ICMP.
fn failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::new(
            FailureKind::Refused,
            "nobody listens (ICMP port unreachable)",
        ),
        io::ErrorKind::HostUnreachable => {
            Failure::new(FailureKind::Unreachable, "host unreachable")
        }
        io::ErrorKind::NetworkUnreachable => {
            Failure::new(FailureKind::Unreachable, "network unreachable")
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(FailureKind::Unreachable, connect::FORBIDDEN)
        }
        _ => Failure::new(FailureKind::Local, format_args!("UDP: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::hostile::{self, ask, timed_out};
    use crate::model::check::CheckKind;

    fn check(expect: &str) -> CheckKind {
        CheckKind::Udp(ExchangeCheck {
            send: "ping".to_owned(),
            expect: expect.to_owned(),
        })
    }

    /// A server that answers a first datagram by these.
    async fn answering(answers: &[&[u8]]) -> (Target, tokio::task::JoinHandle<Vec<u8>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = hostile::target(socket.local_addr().unwrap());
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let served = tokio::spawn(async move {
            let mut asked = vec![0; 100];
            let (length, client) = socket.recv_from(&mut asked).await.unwrap();
            for answer in answers {
                socket.send_to(&answer, client).await.unwrap();
            }
            asked.truncate(length);
            asked
        });
        (target, served)
    }

    #[tokio::test]
    async fn any_answer_will_do_where_none_is_expected() {
        let (target, served) = answering(&[b""]).await;
        assert_eq!(ask(&check(""), target).await.0, Ok(()));
        assert_eq!(served.await.unwrap(), b"ping");
    }

    #[tokio::test]
    async fn the_right_answer_may_come_behind_a_wrong_one() {
        let (target, _served) = answering(&[b"late", b"pong"]).await;
        assert_eq!(ask(&check("pong"), target).await.0, Ok(()));
    }

    #[tokio::test]
    async fn a_wrong_answer_is_told_at_the_deadline() {
        let (target, _served) = answering(&[&[0xff; 9000], b"ENOENT"]).await;
        let reason = timed_out(&check("pong"), target).await;
        let wrong = "answer \"ENOENT\" without \"pong\"";
        assert!(reason.contains(wrong), "{reason}");
    }

    #[tokio::test]
    async fn silence_is_told_as_what_it_is() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = hostile::target(socket.local_addr().unwrap());
        let reason = timed_out(&check(""), target).await;
        assert!(reason.contains("UDP does not tell"), "{reason}");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_at_once() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = hostile::target(socket.local_addr().unwrap());
        drop(socket);
        let (kind, reason) = hostile::failure(&check(""), target).await;
        assert_eq!(kind, FailureKind::Refused, "{reason}");
    }

    #[tokio::test]
    async fn a_datagram_of_somebody_else_is_no_answer() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = hostile::target(server.local_addr().unwrap());
        let kind = check("");
        let asked = timed_out(&kind, target);
        let forging = async {
            let (_, client) = server.recv_from(&mut [0; 100]).await.unwrap();
            stranger.send_to(b"pong", client).await.unwrap();
        };
        tokio::join!(asked, forging);
    }
}
