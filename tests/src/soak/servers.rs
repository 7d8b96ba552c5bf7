//! The servers that are asked.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::shutdown;

use crate::certificates::Identity;
use crate::dns::Dnsmasq;
use crate::nginx::Nginx;
use crate::program::Program;
use crate::topology::Backend;
use crate::{redis, tls_nginx};

/// Where nginx speaks plainly.
pub const HTTP_PORT: u16 = 80;
/// Where datagrams are said back.
pub const UDP_PORT: u16 = 5300;
/// Where connections are accepted, and nothing is said.
pub const SILENT_PORT: u16 = 7000;
/// Where nobody listens.
pub const DEAD_PORT: u16 = 9;

/// Connections that the silent server holds; their clients are gone by then.
const HELD_MAX: usize = 256;
/// How often the server of datagrams looks whether it is to end.
const UDP_LOOK: Duration = Duration::from_millis(200);

/// The servers of one backend, but for the database. Dropping it ends them.
#[derive(Debug)]
pub struct Servers {
    _web: Nginx,
    _tls: Program,
    _dns: Dnsmasq,
    _redis: Program,
    _udp: UdpEcho,
    _silent: Silent,
}

impl Servers {
    /// Starts them all.
    pub fn start(backend: &Backend, identity: &Identity) -> Result<Self> {
        let (name, netns) = (&backend.name, &backend.netns);
        Ok(Self {
            _web: Nginx::start(name, netns, &[HTTP_PORT])?,
            _tls: tls_nginx::start(name, netns, identity)?,
            _dns: Dnsmasq::start(name, netns)?,
            _redis: redis::start(name, netns)?,
            _udp: UdpEcho::start(backend)?,
            _silent: Silent::start(backend)?,
        })
    }
}

/// Says datagrams back.
#[derive(Debug)]
struct UdpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    fn start(backend: &Backend) -> Result<Self> {
        let own = SocketAddr::from((backend.v4, UDP_PORT));
        let socket = backend.netns.run(|| UdpSocket::bind(own))?;
        let socket = socket.with_context(|| format!("cannot listen on {own}"))?;
        socket.set_read_timeout(Some(UDP_LOOK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !is_stopped.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut bytes) {
                    // A client that is gone concerns nobody else.
                    let _gone = socket.send_to(&bytes[..length], client);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Accepts connections and says nothing.
#[derive(Debug)]
struct Silent {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Silent {
    fn start(backend: &Backend) -> Result<Self> {
        let own = SocketAddr::from((backend.v4, SILENT_PORT));
        let listener = backend.netns.run(|| TcpListener::bind(own))?;
        let listener = listener.with_context(|| format!("cannot listen on {own}"))?;
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            let mut held = VecDeque::new();
            while let Ok((stream, _)) = accepting.accept() {
                held.push_back(stream);
                if held.len() > HELD_MAX {
                    held.pop_front();
                }
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // It wakes the thread up: accept(2) on a listener that was shut down fails on Linux.
        let woken = shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            drop(thread.join());
        }
    }
}
