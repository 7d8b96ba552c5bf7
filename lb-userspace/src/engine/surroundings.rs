//! The node's network as the engine knows it, and what keeps it current.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::resolver::Resolver;
use crate::desired::{Network, has_nat};
use crate::maps::MapState;
use crate::model::Model;
use crate::netlink::Netlink;
use crate::netlink::monitor::{Changes, Monitor};
use crate::netlink::next_hop::{Freshness, Hop, RouteAnswer, hop, link_host};
use crate::netlink::view::{LinkAddress, LinkHost, NeighbourState, View};
use crate::ways::{Ways, WaysReceiver};

/// How long a change waits for new backends to answer, so that no flow is sent to one whose
/// address is not known yet. One that does not answer in this time is taken in nevertheless.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// While a change waits for new backends, the neighbours are read this often.
const SETTLE_PERIOD: Duration = Duration::from_millis(20);

const NEIGHBOURS: Changes = Changes {
    topology: false,
    neighbours: true,
};

/// Links, routes, neighbours, and the ways to the backends.
pub(super) struct Surroundings {
    pub(super) netlink: Netlink,
    pub(super) monitor: Monitor,
    pub(super) network: Network,
    answers: BTreeMap<IpAddr, RouteAnswer>,
    /// The topology has changed since all answers were got.
    answers_are_old: bool,
    resolver: Resolver,
    /// Ethernet addresses that an earlier daemon knew: by backend, and by host.
    recalled: Recalled,
    /// The ways to the backends, for the checks that take them.
    ways: watch::Sender<Arc<Ways>>,
}

/// What the maps tell of next hops.
#[derive(Debug, Default)]
struct Recalled {
    backends: BTreeMap<IpAddr, (u32, LinkAddress)>,
    gateways: BTreeMap<LinkHost, LinkAddress>,
}

impl Surroundings {
    /// Opens the sockets; nothing is read yet.
    pub(super) fn open() -> anyhow::Result<Self> {
        Ok(Self {
            // The monitor first: what changes after the first reading is not missed.
            monitor: Monitor::open()?,
            netlink: Netlink::open()?,
            network: Network::default(),
            answers: BTreeMap::new(),
            answers_are_old: false,
            resolver: Resolver::default(),
            recalled: Recalled::default(),
            ways: watch::Sender::default(),
        })
    }

    /// Begins with the next hops that stand in the maps: what the kernel has forgotten meanwhile is used
    /// until it is found anew.
    pub(super) fn recall(&mut self, maps: &MapState) {
        let backends = maps
            .backends
            .values()
            .filter(|entry| entry.is_resolved == 1);
        self.recalled.backends = backends
            .map(|entry| {
                let hop = (entry.ifindex, entry.link.destination());
                (entry.address.to_ip(), hop)
            })
            .collect();
        let routes = maps.routes.values().filter(|route| route.is_resolved == 1);
        self.recalled.gateways = routes
            .map(|route| {
                let gateway = (route.ifindex, route.gateway.to_ip());
                (gateway, route.link.destination())
            })
            .collect();
    }

    /// Takes what was recalled for granted, once, where nothing better is known.
    fn use_recalled(&mut self, hosts: &BTreeSet<LinkHost>) {
        let Recalled { backends, gateways } = std::mem::take(&mut self.recalled);
        let behind = backends
            .into_iter()
            .filter_map(|(address, (ifindex, link))| {
                let target = self.answers.get(&address)?.as_ref().ok()?;
                let host = link_host(address, target)?;
                (host.0 == ifindex).then_some((host, link))
            });
        let known: Vec<_> = behind.chain(gateways).collect();
        for (host, link) in known {
            if hosts.contains(&host) {
                self.network.memory.recall(host, link);
            }
        }
    }

    /// The kernel's tables as last read.
    pub(super) const fn view(&self) -> &View {
        &self.network.view
    }

    /// Reads all for another model: only ways to backends that are new are asked for, since the
    /// topology's changes are followed by themselves.
    pub(super) async fn read_for(&mut self, model: &Model) -> anyhow::Result<()> {
        self.read(Changes::ALL, model).await
    }

    /// Reads again what has changed, and finds the ways to the backends of `model`.
    pub(super) async fn refresh(&mut self, changes: Changes, model: &Model) -> anyhow::Result<()> {
        self.answers_are_old |= changes.topology;
        self.read(changes, model).await
    }

    /// The routing table is needed for NAT only, and may be long.
    async fn read(&mut self, changes: Changes, model: &Model) -> anyhow::Result<()> {
        let view = &mut self.network.view;
        if changes.topology {
            self.netlink.read_links(view).await?;
        }
        if changes.topology && has_nat(model) {
            self.netlink.read_routes(view).await?;
        }
        if changes.neighbours {
            self.netlink.read_neighbours(view).await?;
        }
        let looked_up = self.look_up(backend_addresses(model)).await;
        let hosts = self.hosts(model);
        self.network.memory.refresh(&self.network.view, &hosts);
        self.use_recalled(&hosts);
        self.update_hops();
        self.publish_ways();
        looked_up
    }

    /// Finds the ways to `backends`. Without an answer the former one holds.
    async fn look_up(&mut self, backends: BTreeSet<IpAddr>) -> anyhow::Result<()> {
        self.answers.retain(|address, _| backends.contains(address));
        for address in backends {
            if self.answers_are_old || !self.answers.contains_key(&address) {
                let answer = self.netlink.look_up(address).await?;
                self.answers.insert(address, answer);
            }
        }
        self.answers_are_old = false;
        Ok(())
    }

    fn update_hops(&mut self) {
        let Network { view, memory, hops } = &mut self.network;
        hops.retain(|address, _| self.answers.contains_key(address));
        for (address, answer) in &self.answers {
            let new = hop(*address, answer, view, memory);
            let old = hops.get(address);
            if old != Some(&new) {
                log_transition(*address, old, &new);
                hops.insert(*address, new);
            }
        }
    }

    fn publish_ways(&self) {
        let ways = Ways::of(&self.network);
        self.ways.send_if_modified(|known| {
            let is_changed = **known != ways;
            if is_changed {
                *known = Arc::new(ways);
            }
            is_changed
        });
    }

    /// The ways to the backends, for those who follow them.
    pub(super) fn ways(&self) -> WaysReceiver {
        self.ways.subscribe()
    }

    /// The hosts on our links whose Ethernet addresses the datapath needs: next hops to backends,
    /// and with NAT the gateways of all routes.
    pub(super) fn hosts(&self, model: &Model) -> BTreeSet<LinkHost> {
        let backends = self.answers.iter().filter_map(|(address, answer)| {
            let target = answer.as_ref().ok()?;
            link_host(*address, target)
        });
        let mut hosts: BTreeSet<LinkHost> = backends.collect();
        if has_nat(model) {
            let gateways = self.view().routes.iter().filter_map(|route| {
                let (ifindex, gateway) = link_host(route.destination, &route.target)?;
                (gateway != route.destination).then_some((ifindex, gateway))
            });
            hosts.extend(gateways);
        }
        hosts
    }

    /// Has the kernel resolve what is not confirmed and due.
    pub(super) async fn resolve_due(&mut self, model: &Model) {
        let hosts = self.hosts(model);
        for host in self
            .resolver
            .due(&hosts, &self.network.view, Instant::now())
        {
            if let Err(error) = self.netlink.resolve(host).await {
                debug!("{error:#}");
            }
        }
    }

    /// Has the kernel resolve a client that the packet path has asked for.
    pub(super) async fn resolve_client(&mut self, host: LinkHost) {
        let (ifindex, address) = host;
        let is_somebody = ifindex != 0 && !address.is_unspecified();
        if !is_somebody || !self.resolver.accepts_client(host, Instant::now()) {
            return;
        }
        if let Err(error) = self.netlink.resolve(host).await {
            debug!("{error:#}");
        }
    }

    /// Waits, for [`SETTLE_TIME`] at most, until all hosts that `model` needs are resolved, but for
    /// those of `known_before`.
    pub(super) async fn settle(
        &mut self,
        model: &Model,
        known_before: &BTreeSet<LinkHost>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLE_TIME;
        self.resolve_due(model).await;
        while Instant::now() < deadline && self.awaits_any(model, known_before) {
            // Not woken by the kernel: on a busy network, that would be all the time.
            sleep(SETTLE_PERIOD).await;
            self.refresh(NEIGHBOURS, model).await?;
        }
        Ok(())
    }

    /// Whether a host that `model` needs was not found yet.
    pub(super) fn lacks_any(&self, model: &Model) -> bool {
        self.awaits_any(model, &BTreeSet::new())
    }

    fn awaits_any(&self, model: &Model, known_before: &BTreeSet<LinkHost>) -> bool {
        let is_unknown = |host: &LinkHost| {
            let entry = self.view().neighbours.get(host);
            entry.is_none_or(|entry| entry.state == NeighbourState::Unknown)
        };
        let hosts = self.hosts(model);
        hosts.difference(known_before).any(is_unknown)
    }

    /// Opens the connection anew.
    pub(super) fn reopen_netlink(&mut self) -> anyhow::Result<()> {
        self.netlink = Netlink::open()?;
        Ok(())
    }

    /// Listens anew after the socket failed.
    pub(super) fn reopen_monitor(&mut self, error: &std::io::Error) -> anyhow::Result<()> {
        warn!("the kernel's notifications broke off, listening anew: {error}");
        self.monitor = Monitor::open()?;
        Ok(())
    }
}

fn backend_addresses(model: &Model) -> BTreeSet<IpAddr> {
    let services = model.services.values();
    services
        .flat_map(|service| service.backends.values())
        .map(|backend| backend.address)
        .collect()
}

fn log_transition(address: IpAddr, old: Option<&Hop>, new: &Hop) {
    let was_resolved = old.is_some_and(|hop| hop.resolved.is_ok());
    match &new.resolved {
        Ok(hop) if hop.freshness == Freshness::LastKnown => warn!(
            %address,
            interface = hop.interface,
            "the next hop does not answer; frames still go to its last known address"
        ),
        Ok(hop) => info!(%address, interface = hop.interface, "next hop resolved"),
        Err(reason) if was_resolved => warn!(%address, reason, "next hop lost"),
        Err(reason) => info!(%address, reason, "next hop not resolved yet"),
    }
}
