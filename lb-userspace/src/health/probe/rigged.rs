//! Every kind of hostile server in turn, for any check over TCP.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::hostile::{SHORT, Server, drips, floods, resets};
use super::probe;
use crate::health::outcome::{Failure, FailureKind};
use crate::model::check::CheckKind;

/// What is bounded neither by a count nor by a length that a reader would look for; the begin of an array of
/// Redis', of a packet of MySQL's.
const ENDLESS: [&[u8]; 6] = [
    b"\n",
    b"x",
    b"\0",
    b"\xff",
    b"*9999999\r\n",
    b"\0\0\0\x01\x0a",
];

/// Answers of noise that a check is given.
const NOISES: usize = 200;

/// Asks servers that hang up, hang, flood, drip and babble. Each must end in a failure: those that never
/// end by the deadline, all others long before.
pub(super) async fn survives(kind: &CheckKind) {
    fails(kind, |stream| async { drop(stream) }).await;
    fails(kind, resets).await;
    let failure = fails(kind, hangs).await;
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
    for endless in ENDLESS {
        let failure = fails(kind, |stream| floods(stream, b"", endless)).await;
        assert_ne!(
            failure.kind,
            FailureKind::TimedOut,
            "{endless:?}: {failure}"
        );
    }
    fails(kind, |stream| drips(stream, b"", b"1")).await;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..NOISES {
        let bytes = noise.bytes(64);
        fails(kind, |stream| babbles(stream, bytes)).await;
    }
}

async fn fails<S>(kind: &CheckKind, script: impl FnOnce(TcpStream) -> S + Send + 'static) -> Failure
where
    S: Future<Output = ()> + Send + 'static,
{
    let server = Server::start(script).await;
    let deadline = Instant::now() + SHORT;
    let (result, _) = probe(kind, server.target(), deadline).await;
    result.expect_err("a hostile server is no healthy one")
}

async fn hangs(stream: TcpStream) {
    std::future::pending::<()>().await;
    drop(stream);
}

/// Says something and closes, after which the peer still can read it: a close with unread bytes would be a
/// reset, and take the answer with it.
async fn babbles(mut stream: TcpStream, bytes: Vec<u8>) {
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let patience = Duration::from_secs(20);
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut Vec::new())).await;
}

/// Bytes without sense, the same in every run (xorshift64).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }
}
