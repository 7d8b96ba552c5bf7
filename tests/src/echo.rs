//! A TCP connection to a machine itself, held open and used now and then, as somebody's ssh would be.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::shutdown;

use crate::netns::Netns;

/// How long a word may take there and back.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A server that says back what it hears, on every address of its namespace. Dropping it ends it.
#[derive(Debug)]
pub struct EchoServer {
    listener: TcpListener,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts it in `netns` on a port that is free there.
    pub fn start(netns: &Netns) -> Result<Self> {
        // On Linux a socket of the unspecified IPv6 address takes IPv4 as well.
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let listener = netns
            .run(|| TcpListener::bind(any))?
            .context("no port for the echo server")?;
        let port = listener.local_addr()?.port();
        let accepting = listener.try_clone()?;
        let acceptor = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                thread::spawn(move || echo(stream));
            }
        });
        Ok(Self {
            listener,
            port,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens on the machine's address `ip`.
    pub fn at(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, self.port)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // It wakes the acceptor up: accept(2) on a listener that was shut down fails on Linux.
        let woken = shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let (Ok(()), Some(acceptor)) = (woken, self.acceptor.take()) {
            drop(acceptor.join());
        }
    }
}

/// Ends when the client does.
fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
}

/// A connection to an [`EchoServer`].
#[derive(Debug)]
pub struct EchoConnection {
    stream: TcpStream,
    address: SocketAddr,
}

impl EchoConnection {
    /// Connects from `netns`.
    pub fn open(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let stream = netns
            .run(|| TcpStream::connect_timeout(&address, TIMEOUT))?
            .with_context(|| format!("cannot connect to the echo server at {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, address })
    }

    /// Says a word and hears it come back.
    pub fn say(&mut self, word: &str) -> Result<()> {
        let mut heard = vec![0; word.len()];
        self.stream
            .write_all(word.as_bytes())
            .and_then(|()| self.stream.read_exact(&mut heard))
            .with_context(|| format!("the connection to {} is broken", self.address))?;
        ensure!(heard == word.as_bytes(), "{word:?} came back as {heard:?}");
        Ok(())
    }
}

impl Drop for EchoConnection {
    fn drop(&mut self) {
        // It ends the server's thread; a connection that is broken already needs no ending.
        let _broken = self.stream.shutdown(Shutdown::Both);
    }
}
