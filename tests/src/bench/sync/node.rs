//! A node with nothing but its end of the link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lb_lab::netns::Netns;
use lb_userspace::model::cluster::{Cluster, Peer};
use lb_userspace::sync::link::{Introduction, LinkStatus, Links, LinksHandle};
use lb_userspace::sync::secret::Secret;
use tokio::sync::oneshot;

use super::churn::Churn;

/// Where nodes listen.
pub(super) const PORT: u16 = 7946;
const HEARTBEAT_MS: u32 = 100;

/// A node.
pub(super) struct Node {
    handle: LinksHandle,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<()>>,
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 90, 0, number], PORT))
}

fn config(number: u8) -> Cluster {
    let other = 3 - number;
    let peer = Peer {
        name: format!("lb{other}"),
        address: address(other),
    };
    Cluster {
        listen: address(number),
        secret_file: PathBuf::new(),
        heartbeat_ms: HEARTBEAT_MS,
        patience_s: 120,
        peers: BTreeMap::from([(peer.name.clone(), peer)]),
    }
}

impl Node {
    /// Starts node 1 or 2 in its namespace, with a table to share.
    pub(super) fn start(net: &Netns, number: u8, table: Churn) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (started, start) = mpsc::channel();
        let entry = net.entry();
        let thread = thread::spawn(move || {
            entry.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async move {
                    let secret = Secret::from_bytes(&[7; 32])?;
                    let name = format!("lb{number}");
                    let introduction = Introduction::default();
                    let (handle, mut events) =
                        Links::start(&config(number), &name, &secret, introduction)?;
                    handle.share_table(Some(Box::new(table))).await;
                    started.send(handle.clone())?;
                    let mut stopped = stopped;
                    loop {
                        tokio::select! {
                            _ = events.recv() => (),
                            _ = &mut stopped => break,
                        }
                    }
                    handle.shutdown().await;
                    Ok(())
                })
            })?
        });
        match start.recv() {
            Ok(handle) => Ok(Self {
                handle,
                stop,
                thread,
            }),
            Err(_) => {
                joined(thread)?;
                bail!("node {number} has ended")
            }
        }
    }

    /// How its link is.
    pub(super) fn status(&self) -> Result<LinkStatus> {
        let status = self.handle.status();
        status.peers.into_iter().next().context("one peer")
    }

    /// Waits until the link is so.
    pub(super) fn wait(&self, within: Duration, is_so: impl Fn(&LinkStatus) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status()?;
            if is_so(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the link is not as it should be after {within:?}: {status:#?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<()> {
        // It may have ended already: then joining tells why.
        let _ = self.stop.send(());
        joined(self.thread)
    }
}

fn joined(thread: thread::JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
