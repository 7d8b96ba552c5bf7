//! Records of FastCGI: a header of eight bytes, content, padding.
//! (<https://fastcgi-archives.github.io/FastCGI_Specification.html>)

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, BufReader};

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::connect::{self, AnyStream};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// The one request of a connection.
const REQUEST_ID: u16 = 1;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The longest path: more does not fit into a record with the other parameters. Unit: bytes.
const PATH_MAX_BYTES: usize = 8 * 1024;

/// Kinds of record that an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Output,
    Error,
    End,
}

pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) content: Vec<u8>,
}

/// The whole request: begin, parameters, no input. The server closes the connection after its answer.
pub(super) fn request(path: &str, server: SocketAddr) -> Result<Vec<u8>, Failure> {
    if path.len() > PATH_MAX_BYTES {
        return Err(Failure::new(
            FailureKind::Local,
            format_args!("the path is longer than {PATH_MAX_BYTES} bytes"),
        ));
    }
    let (script, query) = path.split_once('?').unwrap_or((path, ""));
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let parameters = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "lbd"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_ADDR", &address),
        ("SERVER_PORT", &port),
        ("SERVER_NAME", &address),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", path),
        ("SCRIPT_NAME", script),
        ("SCRIPT_FILENAME", script),
        ("QUERY_STRING", query),
        ("CONTENT_LENGTH", "0"),
    ];
    let parameters: Vec<u8> = parameters
        .iter()
        .flat_map(|(name, value)| parameter(name, value))
        .collect();
    /// Role responder, no flags: the connection is not kept.
    const RESPONDER: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    Ok([
        record(BEGIN_REQUEST, &RESPONDER),
        record(PARAMS, &parameters),
        record(PARAMS, &[]),
        record(STDIN, &[]),
    ]
    .concat())
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [id_high, id_low] = REQUEST_ID.to_be_bytes();
    // Paths are bounded so that this holds.
    let [length_high, length_low] = (content.len() as u16).to_be_bytes();
    let header = [
        VERSION,
        kind,
        id_high,
        id_low,
        length_high,
        length_low,
        0,
        0,
    ];
    [&header, content].concat()
}

/// Lengths below 128 have one byte, others four with the highest bit set.
fn parameter(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| match text.len() {
        short @ 0..=127 => vec![short as u8],
        long => (long as u32 | 1 << 31).to_be_bytes().to_vec(),
    };
    [
        length(name),
        length(value),
        name.as_bytes().to_vec(),
        value.as_bytes().to_vec(),
    ]
    .concat()
}

/// The next record of the answer. A record has at most 64 KiB.
pub(super) async fn read(stream: &mut BufReader<AnyStream>) -> Result<Record, Failure> {
    let broken = |error| connect::broken(&error, "reading the answer");
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let [version, kind, id_high, id_low, high, low, padding, _] = header;
    let kind = match kind {
        STDOUT => Kind::Output,
        STDERR => Kind::Error,
        END_REQUEST => Kind::End,
        _ => return Err(no_fastcgi()),
    };
    if version != VERSION || u16::from_be_bytes([id_high, id_low]) != REQUEST_ID {
        return Err(no_fastcgi());
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut content = vec![0; length + usize::from(padding)];
    stream.read_exact(&mut content).await.map_err(broken)?;
    content.truncate(length);
    Ok(Record { kind, content })
}

/// What END_REQUEST says of the request: the application's status, and the protocol's.
pub(super) fn check_end(content: &[u8]) -> Result<(), Failure> {
    match content.get(4) {
        Some(0) => Ok(()),
        Some(2) => Err(Failure::new(
            FailureKind::Unexpected,
            "the application is overloaded (FCGI_OVERLOADED)",
        )),
        Some(status @ (1 | 3)) => Err(Failure::new(
            FailureKind::Unexpected,
            format_args!("the application takes no such request (protocol status {status})"),
        )),
        _ => Err(no_fastcgi()),
    }
}

fn no_fastcgi() -> Failure {
    Failure::new(FailureKind::Protocol, "the answer is no FastCGI")
}
