//! Connecting to a peer, again and again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::CONNECT_TIMEOUT;
use super::shared::{Shared, add, stopped};
use super::status::DownReason;
use super::stream::{self, Outcome};
use crate::model::cluster::Peer;
use crate::sync::session::Role;

/// Before the second attempt.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between attempts in the long run.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keeps a session with a peer up until the links end.
pub(super) async fn run(
    shared: Arc<Shared>,
    peer: Peer,
    listen: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) {
    let mut pause = PAUSE_MIN;
    while !is_stopping(&stopping) {
        match attempt(&shared, &peer, listen, &stopping).await {
            Outcome::Ended => pause = PAUSE_MIN,
            Outcome::Failed {
                reason: DownReason::Stopped,
                ..
            } => break,
            Outcome::Failed { claimed, reason } => {
                let state = &shared.peers[&peer.name];
                if claimed.is_some() {
                    add(&state.counts.refused_sessions, 1);
                }
                shared.note_failure(state, reason.to_string());
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => (),
            () = stopped(&mut stopping) => (),
        }
    }
}

fn is_stopping(stopping: &watch::Receiver<bool>) -> bool {
    *stopping.borrow() || stopping.has_changed().is_err()
}

async fn attempt(
    shared: &Shared,
    peer: &Peer,
    listen: SocketAddr,
    stopping: &watch::Receiver<bool>,
) -> Outcome {
    let mut stopped_receiver = stopping.clone();
    let connected = tokio::select! {
        connected = timeout(CONNECT_TIMEOUT, connect(listen, peer.address)) => connected,
        () = stopped(&mut stopped_receiver) => return failed(DownReason::Stopped),
    };
    match connected {
        Ok(Ok(tcp)) => {
            let expected = BTreeSet::from([peer.name.clone()]);
            let stopping = stopping.clone();
            stream::run(shared, tcp, Role::Dialler, expected, (), stopping).await
        }
        Ok(Err(error)) => failed(DownReason::Failed(format!("cannot connect: {error}"))),
        Err(_) => failed(DownReason::Failed(format!(
            "cannot connect: no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

fn failed(reason: DownReason) -> Outcome {
    Outcome::Failed {
        claimed: None,
        reason,
    }
}

/// Connects from the address at which this node listens, if that is a certain one: it is the one that peers know.
async fn connect(listen: SocketAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if !listen.ip().is_unspecified() && listen.is_ipv4() == address.is_ipv4() {
        socket.bind(SocketAddr::new(listen.ip(), 0))?;
    }
    socket.connect(address).await
}

/// Between half of it and all of it, so that nodes that were cut off together do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes, there is no session either; the pause is then a whole one.
    if SystemRandom::new().fill(&mut byte).is_err() {
        return pause;
    }
    pause / 2 + pause * u32::from(byte[0]) / 512
}
