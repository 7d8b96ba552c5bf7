//! Against servers with prepared answers, and hostile ones.

use std::net::Ipv4Addr;
use std::time::Instant;

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, CNAME};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::health::probe::hostile::{self, SHORT, ask};
use crate::health::probe::{probe, rigged};
use crate::model::check::CheckKind;

const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

fn check(expect: Option<IpAddr>, is_tcp: bool) -> CheckKind {
    CheckKind::Dns(DnsCheck {
        name: "www.example.com".to_owned(),
        query_type: DnsType::A,
        expect,
        is_tcp,
    })
}

/// What a good server says: an alias and its address.
fn good(question: &Message) -> Message {
    let name = question.queries()[0].name().clone();
    let alias = Name::from_ascii("web.example.com.").unwrap();
    let mut answer = Message::new();
    answer
        .set_id(question.id())
        .set_message_type(MessageType::Response)
        .add_query(question.queries()[0].clone())
        .add_answer(Record::from_rdata(
            name,
            60,
            RData::CNAME(CNAME(alias.clone())),
        ))
        .add_answer(Record::from_rdata(
            alias,
            60,
            RData::A(A::new(192, 0, 2, 1)),
        ));
    answer
}

/// A server over UDP and TCP on one port, which answers as it is told.
async fn serving<U, T>(over_udp: U, over_tcp: T) -> (Target, [JoinHandle<()>; 2])
where
    U: Fn(&Message) -> Vec<Vec<u8>> + Send + 'static,
    T: Fn(&Message) -> Vec<u8> + Send + 'static,
{
    let (datagrams, streams) = loop {
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The same port may be somebody's over TCP.
        if let Ok(streams) = TcpListener::bind(datagrams.local_addr().unwrap()).await {
            break (datagrams, streams);
        }
    };
    let target = hostile::target(datagrams.local_addr().unwrap());
    let udp = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = datagrams.recv_from(&mut buffer).await.unwrap();
            for answer in over_udp(&Message::from_vec(&buffer[..length]).unwrap()) {
                datagrams.send_to(&answer, client).await.unwrap();
            }
        }
    });
    let tcp = tokio::spawn(async move {
        let (mut stream, _) = streams.accept().await.unwrap();
        let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut question).await.unwrap();
        let answer = over_tcp(&Message::from_vec(&question).unwrap());
        let _ = stream.write_u16(answer.len() as u16).await;
        let _ = stream.write_all(&answer).await;
        let _ = stream.read_u8().await;
    });
    (target, [udp, tcp])
}

async fn asked(kind: &CheckKind, target: Target) -> Result<(), Failure> {
    ask(kind, target).await.0
}

async fn over_udp(
    kind: &CheckKind,
    answer: impl Fn(&Message) -> Message + Send + 'static,
) -> Result<(), Failure> {
    let (target, _tasks) = serving(
        move |question| vec![answer(question).to_vec().unwrap()],
        |_| Vec::new(),
    )
    .await;
    asked(kind, target).await
}

#[tokio::test]
async fn an_answer_without_an_error_will_do() {
    assert_eq!(over_udp(&check(None, false), good).await, Ok(()));
    let empty = |question: &Message| {
        let mut answer = good(question);
        answer.take_answers();
        answer
    };
    assert_eq!(over_udp(&check(None, false), empty).await, Ok(()));
}

#[tokio::test]
async fn an_expected_address_must_be_among_the_answers() {
    assert_eq!(over_udp(&check(Some(WEB), false), good).await, Ok(()));
    let failure = over_udp(&check(Some(OTHER), false), good)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unexpected);
    assert_eq!(failure.reason, "answer 192.0.2.1 in place of 192.0.2.9");
}

#[tokio::test]
async fn codes_are_told_in_words_also_without_the_question() {
    for is_bare in [false, true] {
        let refusing = move |question: &Message| {
            let mut answer = good(question);
            answer.set_response_code(ResponseCode::Refused);
            if is_bare {
                answer.take_queries();
                answer.take_answers();
            }
            answer
        };
        let failure = over_udp(&check(None, false), refusing).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unexpected);
        assert!(failure.reason.contains("REFUSED"), "{failure}");
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_none() {
    let other_name = |question: &Message| {
        let mut answer = good(question);
        let name = Name::from_ascii("evil.example.com.").unwrap();
        answer.queries_mut()[0].set_name(name);
        answer
    };
    let no_answer = |question: &Message| {
        let mut answer = good(question);
        answer.set_message_type(MessageType::Query);
        answer
    };
    for failure in [
        over_udp(&check(None, false), other_name).await.unwrap_err(),
        over_udp(&check(None, false), no_answer).await.unwrap_err(),
    ] {
        assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
    }
}

#[tokio::test]
async fn a_guessed_id_is_not_heard_and_the_right_answer_is() {
    let (target, _tasks) = serving(
        |question| {
            let mut forged = good(question);
            forged.set_id(question.id().wrapping_add(1));
            let right = good(question);
            vec![forged.to_vec().unwrap(), right.to_vec().unwrap()]
        },
        |_| Vec::new(),
    )
    .await;
    assert_eq!(asked(&check(Some(WEB), false), target).await, Ok(()));
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_asked_for_again_if_an_address_is_expected() {
    let cut_off = |question: &Message| {
        let mut answer = good(question);
        answer.take_answers();
        answer.set_truncated(true);
        vec![answer.to_vec().unwrap()]
    };
    let whole = |question: &Message| good(question).to_vec().unwrap();
    let (target, _tasks) = serving(cut_off, whole).await;
    assert_eq!(asked(&check(None, false), target).await, Ok(()));
    assert_eq!(asked(&check(Some(WEB), false), target).await, Ok(()));
}

#[tokio::test]
async fn over_tcp() {
    let whole = |question: &Message| good(question).to_vec().unwrap();
    let (target, _tasks) = serving(|_| Vec::new(), whole).await;
    assert_eq!(asked(&check(Some(WEB), true), target).await, Ok(()));
    rigged::survives(&check(None, true)).await;
}

#[tokio::test]
async fn garbage_is_a_failure_and_silence_a_time_out() {
    for tail in [&b""[..], &[0xff; 3000], &[0xc0; 500], &[0; 10]] {
        let (target, _tasks) = serving(
            move |question| vec![[&question.id().to_be_bytes(), tail].concat()],
            |_| Vec::new(),
        )
        .await;
        let failure = asked(&check(None, false), target).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
    }
    let (target, _tasks) = serving(|_| Vec::new(), |_| Vec::new()).await;
    let deadline = Instant::now() + SHORT;
    let failure = probe(&check(None, false), target, deadline)
        .await
        .0
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.reason.contains("UDP does not tell"), "{failure}");
}
