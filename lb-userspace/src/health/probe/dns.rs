//! A DNS query, and whether the answer is one.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::udp::{self, DATAGRAM_MAX_BYTES};
use super::{Target, connect};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{DnsCheck, DnsType};

/// Addresses that a reason names.
const NAMED_MAX: usize = 4;

/// Asks, over TCP if so wanted, or if an address is expected and the answer over UDP was cut off.
pub(super) async fn dns(
    check: &DnsCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let question = Question::new(check)?;
    if check.is_tcp {
        return question
            .over_tcp(target, observed)
            .await?
            .judge(check.expect);
    }
    let answer = question.over_udp(target, observed).await?;
    if answer.is_cut_off && check.expect.is_some() {
        return question
            .over_tcp(target, observed)
            .await?
            .judge(check.expect);
    }
    answer.judge(check.expect)
}

struct Question {
    id: u16,
    query: Query,
    bytes: Vec<u8>,
}

impl Question {
    fn new(check: &DnsCheck) -> Result<Self, Failure> {
        let unaskable = |why: String| Failure::new(FailureKind::Local, why);
        let mut name = Name::from_ascii(&check.name)
            .map_err(|error| unaskable(format!("{:?} is no name: {error}", check.name)))?;
        name.set_fqdn(true);
        let query = Query::query(name, record_type(check.query_type));
        let mut id = [0; 2];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| unaskable("the system gave no random bytes".to_owned()))?;
        let id = u16::from_be_bytes(id);
        let mut message = Message::new();
        message
            .set_id(id)
            .set_message_type(MessageType::Query)
            .set_op_code(OpCode::Query)
            .set_recursion_desired(true)
            .add_query(query.clone());
        let bytes = message
            .to_vec()
            .map_err(|error| unaskable(format!("{:?} cannot be asked for: {error}", check.name)))?;
        Ok(Self { id, query, bytes })
    }

    /// What comes with another id is somebody's guess, or late, and is not heard.
    async fn over_udp(&self, target: Target, observed: &mut Observed) -> Result<Answer, Failure> {
        let socket = udp::connected(target, observed).await?;
        socket.send(&self.bytes).await?;
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        loop {
            let length = socket.receive(&mut buffer).await?;
            let bytes = &buffer[..length];
            if bytes.starts_with(&self.id.to_be_bytes()) {
                return self.answer(bytes);
            }
            observed.doing = "answers to another question than the one asked".into();
        }
    }

    async fn over_tcp(&self, target: Target, observed: &mut Observed) -> Result<Answer, Failure> {
        let mut stream = connect::open(target, observed).await?;
        let broken = |error| connect::broken(&error, "asking over TCP");
        // Below 512 bytes: a name has at most 255.
        let prefix = (self.bytes.len() as u16).to_be_bytes();
        let sent = async {
            stream
                .write_all(&[&prefix, &self.bytes[..]].concat())
                .await?;
            stream.flush().await
        };
        sent.await.map_err(broken)?;
        let length = stream.read_u16().await.map_err(broken)?;
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.map_err(broken)?;
        self.answer(&bytes)
    }

    fn answer(&self, bytes: &[u8]) -> Result<Answer, Failure> {
        let garbage = |what: &str| Failure::new(FailureKind::Protocol, what);
        let message =
            Message::from_vec(bytes).map_err(|_| garbage("the answer is no DNS message"))?;
        if message.id() != self.id || message.message_type() != MessageType::Response {
            return Err(garbage("the answer is none to this question"));
        }
        let code = message.response_code();
        // A refusal may leave the question out.
        let is_bare_refusal = message.queries().is_empty() && code != ResponseCode::NoError;
        if message.queries() != [self.query.clone()] && !is_bare_refusal {
            return Err(garbage("the answer repeats another question"));
        }
        let addresses = message
            .answers()
            .iter()
            .filter_map(|record| match record.data() {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
        Ok(Answer {
            code,
            is_cut_off: message.truncated(),
            addresses: addresses.collect(),
        })
    }
}

fn record_type(wanted: DnsType) -> RecordType {
    match wanted {
        DnsType::A => RecordType::A,
        DnsType::Aaaa => RecordType::AAAA,
        DnsType::Ns => RecordType::NS,
        DnsType::Soa => RecordType::SOA,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: ResponseCode,
    is_cut_off: bool,
    addresses: Vec<IpAddr>,
}

impl Answer {
    fn judge(&self, expect: Option<IpAddr>) -> Result<(), Failure> {
        if self.code != ResponseCode::NoError {
            return Err(unexpected(in_words(self.code)));
        }
        match expect {
            None => Ok(()),
            Some(address) if self.addresses.contains(&address) => Ok(()),
            Some(address) => Err(unexpected(format!(
                "answer {} in place of {address}",
                self.named()
            ))),
        }
    }

    fn named(&self) -> String {
        if self.addresses.is_empty() {
            return "without an address".to_owned();
        }
        let named = self.addresses.iter().take(NAMED_MAX);
        let mut text = named.map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        if self.addresses.len() > NAMED_MAX {
            text.push_str(", …");
        }
        text
    }
}

fn unexpected(reason: String) -> Failure {
    Failure::new(FailureKind::Unexpected, reason)
}

/// As `dig` names them, and what they mean.
fn in_words(code: ResponseCode) -> String {
    let (name, meaning) = match code {
        ResponseCode::FormErr => ("FORMERR", "it did not understand the question"),
        ResponseCode::ServFail => ("SERVFAIL", "it could not find out"),
        ResponseCode::NXDomain => ("NXDOMAIN", "there is no such name"),
        ResponseCode::NotImp => ("NOTIMP", "it does not do that"),
        ResponseCode::Refused => (
            "REFUSED",
            "it does not answer such questions, or not from here",
        ),
        other => return format!("the server answers with code {}: {other}", u16::from(other)),
    };
    format!("the server answers {name}: {meaning}")
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
