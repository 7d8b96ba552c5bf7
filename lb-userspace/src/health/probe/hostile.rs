//! Servers for the probes' tests: good ones, and such as no probe may trip over.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Target, probe};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::CheckKind;

/// For servers that answer: no test waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// For servers that never do.
pub(super) const SHORT: Duration = Duration::from_millis(100);

/// A server on loopback and what it makes of its one connection.
pub(super) struct Server<T> {
    pub(super) address: SocketAddr,
    serving: JoinHandle<T>,
}

impl<T: Send + 'static> Server<T> {
    /// Serves one connection.
    pub(super) async fn start<F>(serve: impl FnOnce(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream).await
        });
        Self { address, serving }
    }

    pub(super) fn target(&self) -> Target {
        target(self.address)
    }

    /// What it has made of its connection, once that has ended.
    pub(super) async fn ended(self) -> T {
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .expect("the probe lets go of the connection")
            .expect("the server does not panic")
    }
}

pub(super) fn target(address: SocketAddr) -> Target {
    Target {
        address,
        source: None,
        vip: None,
    }
}

/// Asks with patience.
pub(super) async fn ask(kind: &CheckKind, target: Target) -> (Result<(), Failure>, Observed) {
    let asked = probe(kind, target, Instant::now() + PATIENCE).await;
    assert_eq!(asked.1.doing, "", "it has ended");
    asked
}

/// The failure of a check asked with patience.
pub(super) async fn failure(kind: &CheckKind, target: Target) -> (FailureKind, String) {
    let failure = ask(kind, target).await.0.expect_err("a failure");
    (failure.kind, failure.reason)
}

/// The reason of a check that times out after [`SHORT`].
pub(super) async fn timed_out(kind: &CheckKind, target: Target) -> String {
    let began = Instant::now();
    let (result, _) = probe(kind, target, began + SHORT).await;
    let failure = result.expect_err("a time-out");
    assert_eq!(failure.kind, FailureKind::TimedOut, "{}", failure.reason);
    assert!(began.elapsed() >= SHORT);
    failure.reason
}

/// Says `answer` without having read anything, and closes.
pub(super) async fn blurts(mut stream: TcpStream, answer: impl AsRef<[u8]>) {
    let _ = stream.write_all(answer.as_ref()).await;
}

/// Reads a request, says `answer`, and returns the request and whether the peer then reset the connection.
pub(super) async fn answers(mut stream: TcpStream, answer: impl AsRef<[u8]>) -> (String, bool) {
    let request = read_request(&mut stream).await;
    let _ = stream.write_all(answer.as_ref()).await;
    (request, is_reset(stream).await)
}

/// Reads a request, says `answer`, and closes.
pub(super) async fn answers_and_closes(mut stream: TcpStream, answer: impl AsRef<[u8]>) {
    read_request(&mut stream).await;
    let _ = stream.write_all(answer.as_ref()).await;
}

/// Reads until there is an empty line.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// Reads what comes until the connection ends, and tells whether that was by a reset.
pub(super) async fn is_reset(mut stream: TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Says `begin`, and then `again` until the connection breaks.
pub(super) async fn floods(mut stream: TcpStream, begin: &[u8], again: &[u8]) {
    let many = again.repeat(1 + 4096 / again.len());
    let mut broken = stream.write_all(begin).await.is_err();
    while !broken {
        broken = stream.write_all(&many).await.is_err();
    }
}

/// Says `begin`, and then a byte of `again` each millisecond until the connection breaks.
pub(super) async fn drips(mut stream: TcpStream, begin: &[u8], again: &[u8]) {
    let _ = stream.set_nodelay(true);
    let _ = stream.write_all(begin).await;
    for byte in again.iter().cycle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

/// Resets the connection as soon as something comes.
pub(super) async fn resets(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1]).await;
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
}
