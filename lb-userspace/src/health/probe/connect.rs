//! Connections for probes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

use super::Target;
use crate::health::outcome::{Failure, FailureKind};

/// What protocols are spoken over: TCP from the kernel, TLS upon it, or a connection of our own.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream of any kind.
pub type AnyStream = Box<dyn Stream>;

/// Connects to the target on the way that it asks for.
///
/// # Errors
/// [`Failure`]: refused, unreachable, no descriptor.
pub async fn stream(target: Target) -> Result<AnyStream, Failure> {
    Ok(Box::new(tcp(target).await?))
}

/// Connects over the kernel's TCP. When the stream is dropped, the connection is reset: a thousand
/// checks a second must not leave a thousand ports a second in TIME_WAIT.
///
/// # Errors
/// As [`stream`].
pub async fn tcp(target: Target) -> Result<TcpStream, Failure> {
    let connected = async {
        let socket = match target.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        if let Some(source) = target.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        let stream = socket.connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connected.await.map_err(|error| failed_to_connect(&error))
}

fn failed_to_connect(error: &io::Error) -> Failure {
    let (kind, words) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (FailureKind::Refused, "connection refused".to_owned()),
        io::ErrorKind::ConnectionReset => (FailureKind::Closed, "connection reset".to_owned()),
        io::ErrorKind::TimedOut => (FailureKind::TimedOut, "no answer to SYN".to_owned()),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => (FailureKind::Unreachable, error.to_string()),
        _ => (FailureKind::Local, format!("cannot connect: {error}")),
    };
    Failure::new(kind, words)
}

/// A failure while reading or writing, `doing` what.
pub fn broken(error: &io::Error, doing: &str) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => FailureKind::Closed,
        io::ErrorKind::InvalidData => FailureKind::Protocol,
        _ => FailureKind::Local,
    };
    Failure::new(kind, format!("{doing}: {error}"))
}
