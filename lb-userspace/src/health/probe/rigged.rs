//! Servers for the tests of probes: one that follows a script, and those that mean harm.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Target, probe};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::CheckKind;

/// How long a probe of an honest server may take in a test: a condition, and no wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a server that never ends is borne.
const SHORT: Duration = Duration::from_millis(150);

/// A server on loopback that treats each connection as its script says; ends with this value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start<F, S>(script: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(stream));
            }
        });
        Self { address, task }
    }

    pub(super) fn target(&self) -> Target {
        target(self.address)
    }

    /// Asks once, with patience.
    pub(super) async fn asked(&self, kind: &CheckKind) -> (Result<(), Failure>, Observed) {
        probe(kind, self.target(), Instant::now() + PATIENCE).await
    }
}

pub(super) fn target(address: SocketAddr) -> Target {
    Target {
        address,
        source: None,
        vip: None,
    }
}

/// Asks every kind of hostile server. Each must end in a failure: those that never end by the deadline,
/// all others long before.
pub(super) async fn survives(kind: &CheckKind) {
    let closing = Server::start(|stream| async move { drop(stream) }).await;
    expect(
        &closing,
        kind,
        &[FailureKind::Closed, FailureKind::Protocol],
    )
    .await;

    let silent = Server::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    expect(&silent.await, kind, &[FailureKind::TimedOut]).await;

    for endless in [
        &b"\n"[..],
        b"x",
        b"\0",
        b"\xff",
        b"*9999999\r\n",
        b"\0\0\0\x01\x0a",
    ] {
        let flooding = Server::start(move |mut stream| async move {
            let flood = endless.repeat(8192);
            while stream.write_all(&flood).await.is_ok() {}
        });
        let failure = expect(&flooding.await, kind, &[]).await;
        assert_ne!(
            failure.kind,
            FailureKind::TimedOut,
            "{endless:?}: {failure}"
        );
    }

    let dripping = Server::start(|mut stream| async move {
        while stream.write_all(b"1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    expect(
        &dripping.await,
        kind,
        &[FailureKind::TimedOut, FailureKind::Protocol],
    )
    .await;

    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200 {
        let bytes = noise.bytes(64);
        let babbling = Server::start(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                let _ = stream.write_all(&bytes).await;
                // A close with unread bytes would be a reset, and take the answer with it.
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        expect(&babbling.await, kind, &[]).await;
    }
}

async fn expect(server: &Server, kind: &CheckKind, kinds: &[FailureKind]) -> Failure {
    let begun = Instant::now();
    let (result, _) = probe(kind, server.target(), begun + SHORT).await;
    let failure = result.expect_err("a hostile server is no healthy one");
    assert!(
        kinds.is_empty() || kinds.contains(&failure.kind),
        "{:?}: {failure}",
        failure.kind
    );
    assert!(begun.elapsed() < SHORT + PATIENCE, "{failure}");
    failure
}

/// Bytes without sense, the same in every run (xorshift64).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                (self.0 >> 24) as u8
            })
            .collect()
    }
}
