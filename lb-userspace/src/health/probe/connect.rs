//! Connections for probes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::{Target, wire};
use crate::health::outcome::{Failure, FailureKind, Observed};

/// What a probe reads from its server at most, whatever the protocol makes of it: the largest that any
/// probe wants is 64 KiB of body with 32 KiB of headers and a TLS handshake of at most 64 KiB. Unit: bytes.
pub const READ_BYTES_MAX: u64 = 256 * 1024;

/// What protocols are spoken over: TCP from the kernel, TLS upon it, or a connection of our own.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream of any kind.
pub type AnyStream = Box<dyn Stream>;

/// Connects to the target on the way that it asks for. The stream gives [`READ_BYTES_MAX`] bytes and then
/// an error. It has no shutdown (that would be a FIN, and TIME_WAIT after it): dropping it resets the
/// connection.
///
/// # Errors
/// [`Failure`]: refused, unreachable, no descriptor.
pub async fn stream(target: Target) -> Result<AnyStream, Failure> {
    match target.vip {
        None => Ok(Box::new(Bounded::new(tcp(target).await?))),
        Some(vip) => Ok(Box::new(Bounded::new(wire::stream(target, vip).await?))),
    }
}

/// As [`stream`], and a time-out says whether the connection was still to come, or the answer.
///
/// # Errors
/// As [`stream`].
pub async fn open(target: Target, observed: &mut Observed) -> Result<AnyStream, Failure> {
    observed.doing = match target.vip {
        None => "connecting".into(),
        Some(vip) => wire::silence(target, vip).into(),
    };
    let stream = stream(target).await?;
    observed.doing = "waiting for an answer".into();
    Ok(stream)
}

/// Connects over the kernel's TCP. When the stream is dropped, the connection is reset: a thousand
/// checks a second must not leave a thousand ports a second in TIME_WAIT.
///
/// # Errors
/// As [`stream`].
pub async fn tcp(target: Target) -> Result<TcpStream, Failure> {
    let socket = match target.address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(|error| cannot("open a socket", &error))?;
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .map_err(|error| cannot("set SO_LINGER", &error))?;
    if let Some(source) = target.source {
        bind(&socket, source)?;
    }
    let stream = socket.connect(target.address).await;
    let stream = stream.map_err(|error| failed_to_connect(&error))?;
    match stream.set_nodelay(true) {
        Ok(()) => Ok(stream),
        Err(error) => Err(broken(&error, "connected")),
    }
}

/// The port is chosen by `connect`, when the whole four-tuple is known: chosen here it would be one that
/// nobody else uses, and there are 28,000 of those for all backends together.
fn bind(socket: &TcpSocket, source: IpAddr) -> Result<(), Failure> {
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)
        .map_err(|error| cannot("set IP_BIND_ADDRESS_NO_PORT", &error.into()))?;
    socket
        .bind(SocketAddr::new(source, 0))
        .map_err(|error| cannot(&format!("ask from {source}"), &error))
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Local, format_args!("cannot {what}: {error}"))
}

/// What EPERM (a filter of this node) and EACCES (ICMPv6 "administratively prohibited") mean.
pub(super) const FORBIDDEN: &str = "a filter of this node or on the way forbids it";

fn failed_to_connect(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Failure::new(FailureKind::Refused, "connection refused")
        }
        io::ErrorKind::ConnectionReset => Failure::new(
            FailureKind::Closed,
            "connection reset while it was established",
        ),
        io::ErrorKind::TimedOut => Failure::new(FailureKind::TimedOut, "no answer to SYN"),
        io::ErrorKind::HostUnreachable => {
            Failure::new(FailureKind::Unreachable, "host unreachable")
        }
        io::ErrorKind::NetworkUnreachable => {
            Failure::new(FailureKind::Unreachable, "network unreachable")
        }
        io::ErrorKind::PermissionDenied => Failure::new(FailureKind::Unreachable, FORBIDDEN),
        io::ErrorKind::AddrNotAvailable => cannot(
            "connect: no local port is free for this address (net.ipv4.ip_local_port_range)",
            error,
        ),
        _ => cannot("connect", error),
    }
}

/// A failure while reading or writing, `doing` what.
pub fn broken(error: &io::Error, doing: &str) -> Failure {
    if let Some(failure) = super::tls::said_by_rustls(error) {
        return failure;
    }
    let (kind, words) = match error.kind() {
        io::ErrorKind::UnexpectedEof => (FailureKind::Closed, "closed by the server"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => (FailureKind::Closed, "connection reset by the server"),
        io::ErrorKind::TimedOut => (FailureKind::TimedOut, "no acknowledgement"),
        io::ErrorKind::HostUnreachable => (FailureKind::Unreachable, "host unreachable"),
        io::ErrorKind::NetworkUnreachable => (FailureKind::Unreachable, "network unreachable"),
        io::ErrorKind::PermissionDenied => (FailureKind::Unreachable, FORBIDDEN),
        io::ErrorKind::InvalidData => {
            return Failure::new(FailureKind::Protocol, format_args!("{doing}: {error}"));
        }
        _ => return Failure::new(FailureKind::Local, format_args!("{doing}: {error}")),
    };
    Failure::new(kind, format_args!("{doing}: {words}"))
}

/// A stream that gives a bounded number of bytes, and has no shutdown.
struct Bounded<S> {
    inner: S,
    left_bytes: u64,
}

impl<S> Bounded<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            left_bytes: READ_BYTES_MAX,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left_bytes == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("more than {} KiB", READ_BYTES_MAX / 1024),
            )));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        this.left_bytes = this.left_bytes.saturating_sub(bytes as u64);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
