//! The task that brings together what happens on the links, what `lbd-vrrp` says, and what the engine must know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::facts::{configuration, facts, is_unfit};
use super::hash_key::{self, Claim, HashKey, better};
use super::kinds;
use super::status::{NodeStatus, routers};
use super::view::{Names, Sight, view};
use crate::cluster::GroupId;
use crate::control::peers::PeersHandle;
use crate::engine::{Agreement, EngineHandle, Fitness, Joined, Models, PeerNews};
use crate::events::unix_ms;
use crate::model::Model;
use crate::sync::link::{LinkEvent, LinksHandle, LinksStatus};
use crate::sync::secret::hash_key_fingerprint;
use crate::vrrp::protocol::{
    Configuration, Facts, PeerFacts, PeerRouter, State, Status, silent_after,
};

/// Events that are handled together: the engine looks at the rings once for all of them.
const EVENTS_MAX: usize = 256;
/// News that wait for the engine: more than the frames of all peers that can wait at a time.
const NEWS_MAX: usize = 4096;

/// Between two looks at what has changed, where no peer asks for more.
const TICK: Duration = Duration::from_millis(100);

/// A daemon says how it is with every tick: one that has not for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// A peer has had other changes for so long that some must have been refused: they are told again, and so often.
const DIFFERENT_MAX: Duration = Duration::from_secs(10);

/// Between two words to the engine that all nodes have the same changes.
const AGREED_PERIOD: Duration = Duration::from_secs(60);

/// What the task is given.
pub struct Ends {
    /// The engine.
    pub engine: EngineHandle,
    /// The model in force.
    pub models: Models,
    /// What this node could serve with.
    pub fitness: watch::Receiver<Fitness>,
    /// What it has in common with peers; `None`: it has none, but VIPs that move.
    pub joined: Option<Joined>,
    /// The key of authenticated advertisements.
    pub vrrp_key: Option<[u8; 32]>,
    /// Where the datapath is pinned.
    pub pins: String,
    /// Where to say that the datapath is to be made anew with another flow hash key.
    pub anew: mpsc::Sender<HashKey>,
}

/// What comes out of it for `lbd-vrrp`.
#[derive(Debug)]
pub struct Wires {
    /// What it is to do.
    pub configuration: watch::Sender<Option<Configuration>>,
    /// What it cannot know by itself.
    pub facts: watch::Sender<Facts>,
    /// How it is.
    pub status: watch::Receiver<Option<Status>>,
}

/// A peer, as it was last heard.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerSeen {
    /// Whether there is a link.
    pub(super) is_up: bool,
    /// Whether there is one over which no heartbeat comes any more.
    pub(super) is_silent: bool,
    /// Whether it hears nothing of this node.
    pub(super) is_deaf: bool,
    /// What it said last; `None` = nothing that is understood here.
    pub(super) status: Option<NodeStatus>,
    /// When that was so; `None` = nothing in this session.
    pub(super) heard: Option<Instant>,
    /// When the link came up.
    up_at: Option<Instant>,
    /// Since when it has other changes than this node, or was last told all of them for that.
    differs: Option<Instant>,
    /// Whether the engine knows that it has the same.
    is_same: bool,
}

/// The task's state.
pub struct Task {
    engine: EngineHandle,
    models: Models,
    fitness: watch::Receiver<Fitness>,
    links: Option<LinksHandle>,
    link_events: mpsc::Receiver<LinkEvent>,
    agreement: watch::Receiver<Agreement>,
    wires: Wires,
    key: Option<[u8; 32]>,
    pins: String,
    heartbeat_ms: u32,
    handle: PeersHandle,
    flow_lag_ms: Arc<AtomicU64>,
    hash_key: HashKey,
    peer_keys: BTreeMap<String, HashKey>,
    /// Where to say that the datapath is to be made anew with another key.
    anew: mpsc::Sender<HashKey>,
    peers: BTreeMap<String, PeerSeen>,
    /// What the engine was told last.
    told_own: BTreeSet<GroupId>,
    told_peers: BTreeMap<String, BTreeSet<GroupId>>,
    /// What services are called.
    names: Names,
    /// When the API was last told.
    viewed: Option<Instant>,
    /// When the engine was last told that all have the same changes.
    agreed: Option<Instant>,
    told_taken: BTreeSet<IpAddr>,
}

impl Task {
    /// A task that is to be [`Self::run`].
    pub fn new(ends: Ends, wires: Wires, handle: PeersHandle) -> Self {
        let cluster = ends.models.borrow().cluster.clone();
        let hash_key = ends
            .joined
            .as_ref()
            .map_or([0; _], |joined| joined.hash_key);
        let (links, link_events, agreement, flow_lag_ms) = match ends.joined {
            Some(joined) => {
                let links = Some(joined.links);
                (
                    links,
                    joined.link_events,
                    joined.agreement,
                    joined.flow_lag_ms,
                )
            }
            // Nothing will ever come.
            None => {
                let agreement = watch::channel(Agreement::default()).1;
                (None, mpsc::channel(1).1, agreement, Arc::default())
            }
        };
        Self {
            engine: ends.engine,
            models: ends.models,
            fitness: ends.fitness,
            links,
            link_events,
            agreement,
            wires,
            key: ends.vrrp_key,
            pins: ends.pins,
            heartbeat_ms: cluster.map_or(0, |cluster| cluster.heartbeat_ms),
            handle,
            flow_lag_ms,
            hash_key,
            peer_keys: BTreeMap::new(),
            anew: ends.anew,
            peers: BTreeMap::new(),
            told_own: BTreeSet::new(),
            told_peers: BTreeMap::new(),
            names: Names::default(),
            viewed: None,
            agreed: None,
            told_taken: BTreeSet::new(),
        }
    }

    /// Goes on until the engine has stopped.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        // Facts come first: a router that begins must know whether this node has caught up.
        self.speak();
        self.configure();
        let mut news = Vec::new();
        loop {
            let has_links = self.links.is_some();
            // While the engine is busy, frames wait in their senders' room; what lbd-vrrp must know does not wait.
            let has_room = news.len() < NEWS_MAX;
            tokio::select! {
                count = self.link_events.recv_many(&mut events, EVENTS_MAX), if has_links && has_room => {
                    if count == 0 {
                        return;
                    }
                }
                changed = self.models.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.configure();
                }
                changed = self.fitness.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.configure();
                }
                changed = self.agreement.changed(), if has_links => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.wires.status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = ticks.tick() => {}
            }
            for event in events.drain(..) {
                self.take(event, &mut news);
            }
            self.note_silence(&mut news);
            self.note_own(&mut news);
            self.note_differences(&mut news);
            self.note_agreed(&mut news);
            self.speak();
            if !news.is_empty() && self.engine.try_tell(&mut news).is_err() {
                return;
            }
        }
    }

    /// Tells `lbd-vrrp` what the model says.
    fn configure(&mut self) {
        let model = Arc::clone(&self.models.borrow_and_update());
        let fitness = self.fitness.borrow();
        let wanted = configuration(&model, &fitness, self.key.as_ref(), &self.pins);
        self.wires.configuration.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&wanted);
            *known = Some(wanted);
            is_new
        });
    }

    fn take(&mut self, event: LinkEvent, news: &mut Vec<PeerNews>) {
        match event {
            LinkEvent::Up { peer, .. } => {
                let seen = PeerSeen {
                    is_up: true,
                    up_at: Some(Instant::now()),
                    ..PeerSeen::default()
                };
                self.peers.insert(peer.clone(), seen);
                self.told_peers.remove(&peer);
                self.peer_keys.remove(&peer);
                if let Some(links) = &self.links {
                    let key = hash_key::to_bytes(&self.hash_key);
                    // A link that is down again comes up again.
                    let _unheard = links.send(&peer, kinds::HASH_KEY, key);
                }
                info!(peer, "the link to the peer is up");
                news.push(PeerNews::Up(peer));
            }
            LinkEvent::Down { peer, reason } => {
                warn!(peer, "the link to the peer is down: {reason}");
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.is_up = false;
                }
                news.push(PeerNews::Down(peer));
            }
            LinkEvent::Frame { peer, kind, bytes } => match kind {
                kinds::RINGS => news.push(PeerNews::Message(peer, bytes)),
                kinds::CHANGES => news.push(PeerNews::Changes(peer, bytes)),
                kinds::DETACHED => {
                    info!(peer, "the peer has taken its datapath off");
                    news.push(PeerNews::Detached(peer));
                }
                kinds::HASH_KEY => {
                    let key = hash_key::from_bytes(&bytes);
                    self.peer_keys.extend(key.map(|key| (peer, key)));
                }
                // Of a later version.
                _ => {}
            },
            LinkEvent::Heartbeat {
                peer,
                payload,
                payload_age_ms,
                echo_age_ms,
                at,
            } => {
                let echo_age = echo_age_ms.map(Duration::from_millis);
                let is_deaf = self.is_deaf(&peer, echo_age);
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.is_deaf = is_deaf;
                }
                if is_deaf {
                    return;
                }
                // A daemon that hangs says nothing new, though its heartbeats come.
                let age = Duration::from_millis(payload_age_ms.into());
                let age = if age > HANGS_AFTER {
                    age
                } else {
                    Duration::ZERO
                };
                let said = at.checked_sub(age).unwrap_or(at);
                self.hear(peer, &payload, said, news);
            }
            LinkEvent::Strangers { peer, backends } => {
                news.push(PeerNews::Strangers(peer, backends));
            }
            LinkEvent::Datagram { .. } => {}
        }
    }

    /// Whether a peer hears nothing of this node, though this node hears it: its datagrams arrive, and those to it do
    /// not. It acts as if this node were gone, so this node does not wait for it either.
    fn is_deaf(&self, peer: &str, echo_age: Option<Duration>) -> bool {
        let patience = silent_after(self.heartbeat_ms);
        let up_at = self.peers.get(peer).and_then(|known| known.up_at);
        let is_new = up_at.is_none_or(|up_at| up_at.elapsed() <= patience);
        !is_new && echo_age.is_none_or(|age| age > patience)
    }

    fn hear(&mut self, peer: String, payload: &[u8], at: Instant, news: &mut Vec<PeerNews>) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.heard = Some(at);
        if known.is_silent && at.elapsed() <= silent_after(self.heartbeat_ms) {
            known.is_silent = false;
            info!(peer, "the peer is heard again");
            self.told_peers.remove(&peer);
            news.push(PeerNews::Up(peer.clone()));
        }
        // A heartbeat that is not understood still says that its sender lives.
        if let Some(status) = NodeStatus::decode(payload) {
            known.status = Some(status);
        }
        let routers = known.status.as_ref().map_or(&[][..], |one| &one.routers);
        let active = active(routers);
        if self.told_peers.get(&peer) != Some(&active) {
            self.told_peers.insert(peer.clone(), active.clone());
            news.push(PeerNews::Active(peer, active));
        }
    }

    /// The rings do not wait for who is silent, though the connection may still stand.
    fn note_silence(&mut self, news: &mut Vec<PeerNews>) {
        let patience = silent_after(self.heartbeat_ms);
        for (name, peer) in &mut self.peers {
            let last = peer.heard.or(peer.up_at);
            let is_old = last.is_some_and(|last| last.elapsed() > patience);
            if !peer.is_up || !is_old || peer.is_silent {
                continue;
            }
            match peer.heard {
                _ if peer.is_deaf => warn!(peer = name, "{}", hears_nothing(name)),
                Some(_) => warn!(peer = name, "no heartbeat of the peer for {patience:?}"),
                None => warn!(peer = name, "{}", no_datagrams(name)),
            }
            peer.is_silent = true;
            news.push(PeerNews::Down(name.clone()));
        }
    }

    /// Peers that have had other changes than this node for a while.
    fn note_differences(&mut self, news: &mut Vec<PeerNews>) {
        let own = self.agreement.borrow().changes;
        for (name, peer) in &mut self.peers {
            let status = peer.status.as_ref().filter(|_| peer.is_up);
            if status.is_none_or(|status| status.changes == own) {
                let is_news = status.is_some() && !peer.is_same;
                peer.differs = None;
                if is_news {
                    peer.is_same = true;
                    news.push(PeerNews::Same(name.clone()));
                }
                continue;
            }
            peer.is_same = false;
            let since = *peer.differs.get_or_insert_with(Instant::now);
            if since.elapsed() >= DIFFERENT_MAX {
                peer.differs = Some(Instant::now());
                news.push(PeerNews::Differs(name.clone()));
            }
        }
    }

    fn note_own(&mut self, news: &mut Vec<PeerNews>) {
        // One that cannot be started is Active for nobody: peers hear nothing of it either.
        let status = self.wires.status.borrow_and_update().clone();
        let active = active(&routers(status.as_ref(), |_| false));
        if active != self.told_own {
            let has_given_up = !self.told_own.is_subset(&active);
            if let Some(links) = self.links.as_ref().filter(|_| has_given_up) {
                links.tell_ages();
            }
            self.told_own.clone_from(&active);
            news.push(PeerNews::OwnActive(active));
        }
        if let Some(status) = status {
            self.note_taken_vips(&status, news);
        }
    }

    /// What the engine had added and `lbd-vrrp` has on its list, the engine can forget.
    fn note_taken_vips(&mut self, status: &Status, news: &mut Vec<PeerNews>) {
        let given = &self.fitness.borrow().given_vips;
        let taken = status.taken_vips.iter().copied();
        let taken: BTreeSet<IpAddr> = taken.filter(|vip| given.contains_key(vip)).collect();
        if taken != self.told_taken {
            self.told_taken.clone_from(&taken);
            if !taken.is_empty() {
                news.push(PeerNews::VipsTaken(taken));
            }
        }
    }

    /// Now and then, if every configured peer says that it has the changes that this node has.
    fn note_agreed(&mut self, news: &mut Vec<PeerNews>) {
        let is_early = self
            .agreed
            .is_some_and(|agreed| agreed.elapsed() < AGREED_PERIOD);
        let model = self.models.borrow();
        let Some(cluster) = model.cluster.as_ref().filter(|_| !is_early) else {
            return;
        };
        let own = self.agreement.borrow().changes;
        let agrees = |name: &String| {
            let peer = self
                .peers
                .get(name)
                .filter(|peer| peer.is_up && !peer.is_silent);
            let status = peer.and_then(|peer| peer.status.as_ref());
            status.is_some_and(|status| status.changes == own)
        };
        if cluster.peers.keys().all(agrees) {
            self.agreed = Some(Instant::now());
            news.push(PeerNews::Agreed);
        }
    }

    /// Tells the peers and `lbd-vrrp` how things are.
    fn speak(&mut self) {
        let model = Arc::clone(&self.models.borrow());
        let fitness = self.fitness.borrow_and_update().clone();
        let agreement = self.agreement.borrow_and_update().clone();
        let links = self.links.as_ref().map(LinksHandle::status);
        let links = links.unwrap_or_default();
        let behind = agreement.behind.clone().or_else(|| self.key_behind());
        let behind = behind.or_else(|| self.flows_behind(&links));
        self.mind_the_key();
        let lag_ms = links.peers.iter().filter(|peer| peer.is_up);
        let lag_ms = lag_ms.map(|peer| u64::from(peer.flows.lag_ms)).max();
        self.flow_lag_ms
            .store(lag_ms.unwrap_or(0), Ordering::Relaxed);
        self.beat(&model, &fitness, behind.as_deref(), agreement.changes);
        let peers = self.peers.iter().filter_map(|(name, peer)| {
            let heard = peer.heard.filter(|_| peer.is_up)?;
            Some(PeerFacts {
                node: name.clone(),
                heard_ms: heard.elapsed().as_millis() as u64,
                heartbeat_ms: self.heartbeat_ms,
                routers: peer.status.clone().unwrap_or_default().routers,
            })
        });
        let peers = peers.collect();
        let barred = behind.clone().or_else(|| self.out_of_touch(&model));
        let facts = facts(&model, &fitness, barred, peers);
        self.wires.facts.send_replace(facts);
        if self.viewed.is_none_or(|viewed| viewed.elapsed() >= TICK) {
            self.viewed = Some(Instant::now());
            self.names.follow(&model);
            self.handle.set(view(&Sight {
                model: &model,
                names: &self.names,
                behind,
                hash_key: hash_key_fingerprint(&self.hash_key),
                links: &links,
                seen: &self.peers,
                agreement: &agreement,
                now_unix_ms: unix_ms(),
            }));
        }
    }

    /// Why this node lacks flows that its peers have, if so.
    fn flows_behind(&self, links: &LinksStatus) -> Option<String> {
        let mut up = links.peers.iter().filter(|peer| peer.is_up);
        let behind = up.find(|peer| !peer.flows.is_caught_up)?;
        let seen = self.peers.get(&behind.peer);
        Some(match seen {
            Some(seen) if seen.is_silent && seen.is_deaf => hears_nothing(&behind.peer),
            Some(seen) if seen.is_silent && seen.heard.is_none() => no_datagrams(&behind.peer),
            _ => format!("it does not have all flows of {} yet", behind.peer),
        })
    }

    /// Why this node cannot know what its peers know, if so: it hears none of them. Where one of them lives all the
    /// same, which `lbd-vrrp` knows by its advertisements, that one keeps the VIPs.
    fn out_of_touch(&self, model: &Model) -> Option<String> {
        let has_peers = model
            .cluster
            .as_ref()
            .is_some_and(|cluster| !cluster.peers.is_empty());
        let mut peers = self.peers.values();
        let is_any_heard = peers.any(|peer| peer.is_up && peer.heard.is_some() && !peer.is_silent);
        (has_peers && !is_any_heard).then(|| "no peer is heard on the sync link".to_owned())
    }

    /// A node with another key does not know its peers' flows, whatever else it knows.
    fn key_behind(&self) -> Option<String> {
        let others = self.peer_keys.iter();
        let mut up =
            others.filter(|(name, _)| self.peers.get(*name).is_some_and(|peer| peer.is_up));
        let (peer, _) = up.find(|(_, key)| **key != self.hash_key)?;
        Some(format!("its flow hash key is not that of {peer}"))
    }

    /// Has the datapath made anew if a peer that serves has another key, and this node serves nobody.
    fn mind_the_key(&self) {
        let claims = self.peer_keys.iter().filter_map(|(name, key)| {
            let peer = self.peers.get(name).filter(|peer| peer.is_up)?;
            let routers = &peer.status.as_ref()?.routers;
            let claim = Claim {
                key: *key,
                serves: !active(routers).is_empty(),
            };
            Some((name.clone(), claim))
        });
        let is_known = self.wires.status.borrow().is_some();
        let own = Claim {
            key: self.hash_key,
            serves: !is_known || !self.told_own.is_empty(),
        };
        if let Some(key) = better(own, &claims.collect()) {
            // One that waits there already is as good.
            let _full = self.anew.try_send(key);
        }
    }

    fn beat(&mut self, model: &Model, fitness: &Fitness, behind: Option<&str>, changes: u64) {
        let Some(links) = &self.links else {
            return;
        };
        let status = self.wires.status.borrow().clone();
        let said = NodeStatus {
            version: env!("LB_VERSION").to_owned(),
            vrrp_version: status
                .as_ref()
                .map_or_else(String::new, |one| one.version.clone()),
            behind: behind.map(str::to_owned),
            routers: routers(status.as_ref(), |group| is_unfit(model, fitness, group)),
            changes,
        }
        .encode();
        match links.set_heartbeat(said) {
            Ok(()) => {}
            Err(error) => warn!("the peers are not told how this node is: {error}"),
        }
    }
}

/// The groups in which a node is Active.
fn active(routers: &[PeerRouter]) -> BTreeSet<GroupId> {
    let active = routers.iter().filter(|one| one.state == State::Active);
    active.map(|one| (one.group.clone(), one.family)).collect()
}

fn hears_nothing(peer: &str) -> String {
    format!(
        "the datagrams of {peer} come, but it hears none of this node: is UDP open between the two, both ways?"
    )
}

fn no_datagrams(peer: &str) -> String {
    format!(
        "the link to {peer} is up, but no datagram of it comes: is UDP open between the two, as TCP is?"
    )
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
