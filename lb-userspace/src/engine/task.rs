//! The engine's loop.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aya::maps::{MapData, RingBuf};
use lb_common::abi::NeighbourWanted;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::error;

use super::core::{Engine, blocking};
use super::handle::{EngineError, Outcome, Request};
use super::{answers, report};
use crate::model::{Change, Model, Problem};
use crate::netlink::monitor::Changes;
use crate::netlink::view::LinkHost;

/// Changes of the network are collected this long before they are followed: they come in bursts.
const COALESCE_MIN: Duration = Duration::from_millis(20);

/// No longer than this, however busy the network is: a new next hop is to be in force within a
/// second.
const COALESCE_MAX: Duration = Duration::from_millis(500);

/// Following changes takes at most one part in this many of the engine's time. On a link with
/// thousands of hosts there is always a neighbour that changes.
const FOLLOW_SHARE: u32 = 5;

/// Resolution and announcements are looked after this often.
const TICK: Duration = Duration::from_secs(1);

/// Everything is read and compared again every so many ticks, whether or not a change was heard of.
const TICKS_PER_PERIOD: u32 = 5;

/// Events taken from the packet path at once; the rest waits for the next round.
const EVENTS_MAX: usize = 256;

/// Why the engine ends.
enum Ending {
    /// The daemon stops.
    Stop,
    /// Everything is to be taken off.
    Detach(oneshot::Sender<Result<(), EngineError>>),
}

impl Engine {
    /// Serves until it is told to stop or nobody can tell it any more; then, and after a failure
    /// too, leaves the datapath or takes it off, as is configured.
    pub(super) async fn run(mut self, requests: mpsc::Receiver<Request>) -> anyhow::Result<()> {
        match self.serve_all(requests).await {
            Ok(Ending::Detach(reply)) => {
                let detached = self.detach().await;
                // Whoever asked may have gone; the log has it too.
                let _unheard = reply.send(match &detached {
                    Ok(()) => Ok(()),
                    Err(error) => Err(EngineError::Failed(anyhow!("{error:#}"))),
                });
                detached
            }
            Ok(Ending::Stop) => self.stop().await,
            Err(failure) => {
                if let Err(error) = self.stop().await {
                    error!("{error:#}");
                }
                Err(failure)
            }
        }
    }

    async fn serve_all(&mut self, mut requests: mpsc::Receiver<Request>) -> anyhow::Result<Ending> {
        let mut ticks = interval_at(Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick_count = 0;
        let mut pending = Changes::default();
        let mut follow_at = Instant::now();
        let mut pause = COALESCE_MIN;
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    None | Some(Request::Shutdown) => return Ok(Ending::Stop),
                    Some(Request::Detach(reply)) => return Ok(Ending::Detach(reply)),
                    Some(request) => self.serve(request).await,
                },
                changes = self.surroundings.monitor.changed() => {
                    if !pending.any() {
                        follow_at = Instant::now() + pause;
                    }
                    pending = pending.and(match changes {
                        Ok(changes) => changes,
                        Err(error) => {
                            self.surroundings.reopen_monitor(&error)?;
                            Changes::ALL
                        }
                    });
                }
                () = sleep_until(follow_at), if pending.any() => {
                    let start = Instant::now();
                    self.follow(std::mem::take(&mut pending)).await;
                    pause = pause_after(start.elapsed());
                }
                () = until(self.agenda.look_at()) => self.tend().await,
                wanted = wanted_clients(&mut self.events) => {
                    for client in wanted.context("the events map cannot be polled")? {
                        self.surroundings.resolve_client(client).await;
                    }
                }
                _ = ticks.tick() => {
                    tick_count += 1;
                    self.keep_house().await;
                    if tick_count % TICKS_PER_PERIOD == 0 {
                        self.look_at_traffic();
                        pending = Changes::ALL;
                    }
                }
            }
        }
    }

    async fn serve(&mut self, request: Request) {
        // Whoever asked may have gone: then nobody wants the answer.
        match request {
            Request::Change(change, reply) => drop(reply.send(self.change(*change).await)),
            Request::Replace(model, reply) => {
                drop(reply.send(self.replace(*model).await));
            }
            Request::Observe(observations, services_max, reply) => {
                drop(reply.send(self.observe(observations, services_max).await));
            }
            Request::Snapshot(reply) => {
                drop(reply.send(blocking(|| report::snapshot(self))));
            }
            Request::Flows(query, reply) => {
                drop(reply.send(blocking(|| answers::flows(self, &query))));
            }
            Request::Ring(service, reply) => {
                drop(reply.send(blocking(|| answers::ring(self, &service))));
            }
            Request::Drain((service, backend), reply) => {
                drop(reply.send(blocking(|| answers::drain(self, &service, &backend))));
            }
            Request::Plan(query, reply) => {
                drop(reply.send(blocking(|| answers::plan(self, *query))));
            }
            Request::Peers(news) => self.hear(news).await,
            Request::Shutdown | Request::Detach(_) => {}
        }
    }

    async fn replace(&mut self, configured: Model) -> Outcome {
        let laid = self.saved.laid_after_reload(&configured, &self.model);
        let warnings = self.adopt(laid.model).await?;
        self.saved.reloaded(configured);
        self.configs.owe_nothing(laid.refused);
        self.saved.save(&self.model);
        self.tell_changes();
        Ok(warnings)
    }

    async fn change(&mut self, change: Change) -> Outcome {
        self.note_strictness(&change);
        let (model, problems) = self.model.apply(change)?;
        let mut warnings: Vec<String> = problems.iter().map(Problem::to_string).collect();
        let before = self.model.clone();
        warnings.extend(self.adopt(model).await?);
        self.saved.note_change(&before, &self.model);
        self.saved.save(&self.model);
        self.tell_changes();
        Ok(warnings)
    }

    async fn keep_house(&mut self) {
        self.surroundings.resolve_due(&self.whole).await;
        self.announcer.tick(self.surroundings.view());
        self.beat();
        self.retry_adoption().await;
        self.tell_agreement();
        self.look_for_doubts();
    }
}

/// How long to collect changes after following some took `busy`.
fn pause_after(busy: Duration) -> Duration {
    (busy * (FOLLOW_SHARE - 1)).clamp(COALESCE_MIN, COALESCE_MAX)
}

/// Waits until then; without a time, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for the packet path to ask for clients.
async fn wanted_clients(events: &mut AsyncFd<RingBuf<MapData>>) -> std::io::Result<Vec<LinkHost>> {
    let mut guard = events.readable_mut().await?;
    let mut clients = Vec::new();
    let ring = guard.get_inner_mut();
    while clients.len() < EVENTS_MAX {
        let Some(event) = ring.next() else {
            guard.clear_ready();
            break;
        };
        clients.extend(client(&event));
    }
    Ok(clients)
}

/// The host that an event asks for; `None` if it is of another size than the ABI's.
fn client(event: &[u8]) -> Option<LinkHost> {
    let event: NeighbourWanted = bytemuck::try_pod_read_unaligned(event).ok()?;
    let address: IpAddr = event.neighbour.address.to_ip();
    Some((event.neighbour.ifindex, address))
}

#[cfg(test)]
mod tests {
    use lb_common::abi::Address;

    use super::*;

    #[test]
    fn a_busy_network_is_followed_less_often() {
        assert_eq!(pause_after(Duration::from_millis(1)), COALESCE_MIN);
        let busy = Duration::from_millis(50);
        assert_eq!(pause_after(busy), busy * 4);
        assert_eq!(pause_after(Duration::from_secs(1)), COALESCE_MAX);
    }

    #[test]
    fn events_of_the_wrong_size_are_ignored() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let event = NeighbourWanted::new(Address::from(ip), 3);
        let bytes = bytemuck::bytes_of(&event);
        assert_eq!(client(bytes), Some((3, ip)));
        assert_eq!(client(&bytes[1..]), None);
        assert_eq!(client(&[]), None);
    }
}
