//! grpc.health.v1.Health/Check (the gRPC health checking protocol). Its two messages have one field each
//! and are put in and out of bytes here.

use hyper::HeaderMap;
use hyper::body::Bytes;

use super::Target;
use super::connect;
use super::http2;
use super::text::quote;
use super::tls::{self, Protocol};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::GrpcCheck;

const PATH: &str = "/grpc.health.v1.Health/Check";

/// The answer with its prefix; 7 bytes where all is well. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// A compression flag and a length come before each message. Unit: bytes.
const PREFIX_BYTES: usize = 5;

/// Asks the server how it, or a service of its, is.
///
/// # Errors
/// [`Failure`]: anything but SERVING.
pub(super) async fn grpc(
    check: &GrpcCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut stream = connect::open(target, observed).await?;
    let mut scheme = "http";
    if let Some(wanted) = &check.tls {
        scheme = "https";
        stream = tls::secure(stream, wanted, None, target, Protocol::Http2, observed).await?;
    }
    observed.doing = "waiting for an answer".into();
    let authority = match check.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
        Some(name) => format!("{name}:{}", target.address.port()),
        None => target.address.to_string(),
    };
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = http2::request("POST", scheme, &authority, PATH, &headers)?;
    let (sender, connection) = http2::open(stream).await?;
    http2::beside(connection, async {
        let body = Bytes::from(encode(&check.service));
        let response = http2::send(sender, request, Some(body)).await?;
        if response.status() != 200 {
            return Err(Failure::new(
                FailureKind::Unexpected,
                format_args!("HTTP {} in place of gRPC's 200", response.status().as_u16()),
            ));
        }
        check_content_type(response.headers())?;
        // A refusal comes without a message, and its status with the headers.
        check_status(response.headers(), &check.service)?;
        let mut body = response.into_body();
        let mut message = Vec::new();
        while let Some(part) = http2::read(&mut body).await? {
            message.extend_from_slice(&part);
            if message.len() > ANSWER_BYTES_MAX {
                return Err(broken_message());
            }
        }
        check_status(&http2::trailers(&mut body).await?, &check.service)?;
        serving(&message, &check.service)
    })
    .await
}

/// `HealthCheckRequest { string service = 1; }` with its prefix.
fn encode(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length > 0x7f {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.append(&mut message);
    framed
}

/// A web server's page is no answer, whatever its status.
fn check_content_type(headers: &HeaderMap) -> Result<(), Failure> {
    let content_type = headers
        .get("content-type")
        .map_or(&b""[..], |text| text.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Protocol,
        format_args!("the answer is no gRPC, but {}", quote(content_type)),
    ))
}

/// `grpc-status`, where there is one.
fn check_status(headers: &HeaderMap, service: &str) -> Result<(), Failure> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let (kind, words) = match status.as_bytes() {
        b"0" => return Ok(()),
        b"5" => (
            FailureKind::Unexpected,
            format!("the server knows no service {}", quote(service)),
        ),
        b"12" => (
            FailureKind::Unexpected,
            "the server has no grpc.health.v1.Health".to_owned(),
        ),
        b"7" => (
            FailureKind::Access,
            "permission denied (gRPC status 7)".to_owned(),
        ),
        b"16" => (
            FailureKind::Access,
            "unauthenticated (gRPC status 16)".to_owned(),
        ),
        other => (
            FailureKind::Unexpected,
            format!("gRPC status {}", String::from_utf8_lossy(other)),
        ),
    };
    match headers.get("grpc-message").filter(|text| !text.is_empty()) {
        Some(text) => Err(Failure::new(
            kind,
            format_args!("{words}: {}", quote(text.as_bytes())),
        )),
        None => Err(Failure::new(kind, words)),
    }
}

/// Whether a framed `HealthCheckResponse { ServingStatus status = 1; }` says SERVING.
fn serving(framed: &[u8], service: &str) -> Result<(), Failure> {
    let status = match framed.split_at_checked(PREFIX_BYTES) {
        Some(([0, length @ ..], message)) if as_length(length) == message.len() => {
            decode(message).ok_or_else(broken_message)?
        }
        _ => return Err(broken_message()),
    };
    let word = match status {
        1 => return Ok(()),
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that this check does not know",
    };
    let whom = match service {
        "" => "the server".to_owned(),
        _ => format!("service {}", quote(service)),
    };
    Err(Failure::new(
        FailureKind::Unexpected,
        format_args!("{whom} is {word} in place of SERVING"),
    ))
}

fn as_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn broken_message() -> Failure {
    Failure::new(
        FailureKind::Protocol,
        "the answer is no message of grpc.health.v1",
    )
}

/// Field 1 of a message; 0 where it is left out, as protocol buffers have it. Other fields are passed over.
fn decode(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

/// Takes a varint (at most ten bytes) off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_one_field_of_text() {
        assert_eq!(encode(""), [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = encode(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 0x01, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 0x12f);
    }

    #[test]
    fn the_status_is_found_among_fields_of_every_type() {
        assert_eq!(decode(&[]), Some(0));
        assert_eq!(decode(&[8, 1]), Some(1));
        let others = [
            0x12, 2, 8, 9, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 8, 2,
        ];
        assert_eq!(decode(&others), Some(2));
        assert_eq!(decode(&[8, 1, 8, 2]), Some(2), "the last one counts");
        for broken in [&[8][..], &[8, 0x80], &[0x12, 9, 1], &[0x0b], &[0xff; 12]] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(framed in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = serving(&framed, "");
            let length = u8::try_from(framed.len()).expect("short");
            let framed = [&[0, 0, 0, 0, length][..], &framed].concat();
            let _ = serving(&framed, "");
        }
    }
}
