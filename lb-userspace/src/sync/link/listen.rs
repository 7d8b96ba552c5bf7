//! Peers that connect to this node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::shared::{Shared, add, stopped};
use super::status::DownReason;
use super::stream::{self, Outcome};
use crate::sync::session::Role;

/// Handshakes at a time from the address of a peer.
const PEER_HANDSHAKES_MAX: usize = 8;
/// Handshakes at a time from all other addresses: a peer's own may be another than config has.
const STRANGER_HANDSHAKES_MAX: usize = 16;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;
/// After a failure to accept, which would come again at once (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at an address, also if the node does not have it yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        set_freebind(&socket, address)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen at [cluster] listen, TCP {address}: {error}"),
        )
    })
}

/// Lets a socket have an address that no interface has yet.
pub(super) fn set_freebind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)
        }
    }
}

/// Places for handshakes.
struct Places {
    by_peer: BTreeMap<IpAddr, Arc<Semaphore>>,
    strangers: Arc<Semaphore>,
}

impl Places {
    fn new(shared: &Shared) -> Self {
        let addresses = shared.peers.values().map(|peer| peer.address.ip());
        Self {
            by_peer: addresses
                .map(|address| (address, Arc::new(Semaphore::new(PEER_HANDSHAKES_MAX))))
                .collect(),
            strangers: Arc::new(Semaphore::new(STRANGER_HANDSHAKES_MAX)),
        }
    }

    fn take(&self, address: IpAddr) -> Option<OwnedSemaphorePermit> {
        let places = self.by_peer.get(&address).unwrap_or(&self.strangers);
        Arc::clone(places).try_acquire_owned().ok()
    }
}

/// Accepts until the links end.
pub(super) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Places::new(&shared);
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, address)) => match places.take(address.ip()) {
                    Some(permit) => {
                        let shared = Arc::clone(&shared);
                        sessions.spawn(serve(shared, tcp, address, permit, stopping.clone()));
                    }
                    None => add(&shared.refused_connections, 1),
                },
                Err(error) => {
                    warn!(%error, "cannot accept a connection to the peer link");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => (),
            () = stopped(&mut stopping) => break,
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
    stopping: watch::Receiver<bool>,
) {
    let expected = shared.callers.clone();
    let outcome = stream::run(&shared, tcp, Role::Acceptor, expected, permit, stopping).await;
    let Outcome::Failed { claimed, reason } = outcome else {
        return;
    };
    if reason == DownReason::Stopped {
        return;
    }
    match claimed.and_then(|name| shared.peers.get(&name)) {
        Some(peer) => {
            shared.note_refused(peer, format!("{} called: {reason}", address.ip()));
        }
        None => shared.note_stranger(address, &reason.to_string()),
    }
}
