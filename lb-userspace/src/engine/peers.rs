//! The engine among its peers: what the agreement on the rings needs of it, and what it gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::core::Engine;
use super::steer::{Leaving, Why, nameless};
use crate::cluster::message::{Message, ServiceEndpoint};
use crate::cluster::{Coordinator, GroupId, Rings, ServiceStatus, SharedService};
use crate::desired::ids::ServiceIdentity;
use crate::desired::protocol_number;
use crate::maps::monotonic_ms;
use crate::model::{Model, Service};
use crate::peers::kinds;
use crate::sync::link::{FrameBytes, LinksHandle, SendError};
use crate::transition::RingTransition;
use crate::vrrp::protocol::Family;

/// So long after its start, a node that lacks next hops counts as behind.
const RESOLVING_MAX: Duration = Duration::from_secs(5);

/// Something that concerns the agreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerNews {
    /// The link to a peer has come up.
    Up(String),
    /// It is lost.
    Down(String),
    /// A peer has taken its datapath off and said goodbye.
    Detached(String),
    /// The groups in which a peer is Active.
    Active(String, BTreeSet<GroupId>),
    /// Those in which this node is.
    OwnActive(BTreeSet<GroupId>),
    /// Backends that a peer has flows of, and this node's services do not have.
    Strangers(String, Vec<(ServiceEndpoint, SocketAddr)>),
    /// A peer's message about rings.
    Message(String, FrameBytes),
    /// A peer's message about changes made at run time.
    Changes(String, FrameBytes),
    /// All peers are there, and have the changes that this node has.
    Agreed,
    /// A peer has had other changes than this node for a while.
    Differs(String),
    /// It has the same: for the first time over this link, or again.
    Same(String),
    /// The VRRP process has taken these VIPs over, which the engine had added itself.
    VipsTaken(BTreeSet<IpAddr>),
}

/// What the engine tells of the agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Why the rings are not those of the peers, if so.
    pub behind: Option<String>,
    /// How each ring is shared.
    pub services: Vec<ServiceStatus>,
    /// How the configurations of peers differ, by peer.
    pub drift: BTreeMap<String, Vec<String>>,
    /// Changes of peers that cannot be in force here, and why.
    pub refused_changes: Vec<String>,
    /// What all nodes with the same changes have in common.
    pub changes: u64,
}

/// The engine's part in the agreement.
pub(super) struct Peers {
    coordinator: Coordinator,
    links: LinksHandle,
}

/// Whether peers are told of what the engine looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// They are.
    Peers,
    /// It is only a try.
    Nobody,
}

impl Peers {
    pub(super) const fn new(coordinator: Coordinator, links: LinksHandle) -> Self {
        Self { coordinator, links }
    }

    /// Sends what the coordinator wants said.
    fn send(&mut self) {
        for output in self.coordinator.take_outputs() {
            let sent = self
                .links
                .send(&output.peer, kinds::RINGS, output.message.encode());
            match sent {
                // The coordinator hears of a link that is down, and begins anew when it is up.
                Ok(()) | Err(SendError::Down(_) | SendError::Full(_)) => {}
                Err(error) => warn!("a message about rings was not sent: {error}"),
            }
        }
    }

    fn take(&mut self, news: PeerNews, now_ms: u64) {
        let coordinator = &mut self.coordinator;
        match news {
            PeerNews::Up(peer) => coordinator.link_up(&peer),
            PeerNews::Down(peer) => coordinator.link_down(&peer, now_ms),
            PeerNews::Detached(peer) => coordinator.note_detached(&peer),
            PeerNews::Active(peer, active) => coordinator.note_peer_active(&peer, active),
            PeerNews::OwnActive(active) => coordinator.note_own_active(active),
            PeerNews::Message(peer, bytes) => match Message::decode(&bytes) {
                Ok(message) => coordinator.receive(&peer, message, now_ms),
                Err(error) => debug!(peer, "{error}"),
            },
            PeerNews::Changes(..)
            | PeerNews::Strangers(..)
            | PeerNews::Agreed
            | PeerNews::Differs(_)
            | PeerNews::Same(_)
            | PeerNews::VipsTaken(_) => {}
        }
    }
}

impl Engine {
    /// Takes what has happened among the peers, and looks at the rings.
    pub(super) async fn hear(&mut self, news: Vec<PeerNews>) {
        for one in news {
            match one {
                PeerNews::Changes(peer, bytes) => self.hear_changes(&peer, &bytes).await,
                PeerNews::Agreed => self.agree().await,
                PeerNews::Differs(peer) => self.tell_changes_again(&peer),
                PeerNews::Same(peer) => self.configs.forget_refusals(&peer),
                PeerNews::Strangers(peer, backends) => self.take_in_strangers(&peer, backends),
                PeerNews::VipsTaken(vips) => self.forget_given_vips(&vips),
                PeerNews::Up(peer) => {
                    self.take_news(PeerNews::Up(peer.clone()));
                    self.tell_all_changes(&peer);
                }
                other => self.take_news(other),
            }
        }
        self.follow(crate::netlink::monitor::Changes::default())
            .await;
    }

    fn take_news(&mut self, news: PeerNews) {
        if let Some(peers) = &mut self.peers {
            peers.take(news, monotonic_ms());
        }
    }

    /// The way to the peers.
    pub(super) fn links(&self) -> Option<LinksHandle> {
        self.peers.as_ref().map(|peers| peers.links.clone())
    }

    /// Before the rings are looked at.
    pub(super) fn hear_owners(&mut self, now_ms: u64) {
        if let Some(mut peers) = self.peers.take() {
            peers.coordinator.before_look(self, now_ms);
            peers.send();
            self.peers = Some(peers);
        }
    }

    /// After that, before they are written.
    pub(super) fn tell_followers(&mut self) {
        if let Some(mut peers) = self.peers.take() {
            peers.coordinator.after_look(self);
            peers.send();
            self.peers = Some(peers);
        }
    }

    /// The rings are written. Says whether more is in force than before; `None`: there are no peers.
    pub(super) fn note_written_among_peers(&mut self, now_ms: u64) -> Option<bool> {
        let mut peers = self.peers.take()?;
        let is_any_new = peers.coordinator.after_write(self, now_ms);
        peers.send();
        self.peers = Some(peers);
        Some(is_any_new)
    }

    /// A sweep has ended.
    pub(super) fn tell_swept(
        &mut self,
        service: &Service,
        exceptions: &crate::transition::sweep::Exceptions,
        began_ms: u64,
    ) {
        if let Some(peers) = &mut self.peers {
            let now_ms = monotonic_ms();
            let coordinator = &mut peers.coordinator;
            coordinator.swept(&endpoint(service), exceptions, began_ms, now_ms);
            peers.send();
        }
    }

    /// Tells the peers that nothing is forwarded here any more.
    pub(super) fn say_detached(&self) {
        let Some(peers) = &self.peers else {
            return;
        };
        for peer in peers.links.status().peers.iter().filter(|peer| peer.is_up) {
            // Who does not hear it waits for this node until its patience is over.
            let _unheard = peers.links.send(&peer.peer, kinds::DETACHED, Vec::new());
        }
    }

    /// When the rings are to be looked at for the peers' sake. Unit: milliseconds.
    pub(super) fn peers_due_ms(&self) -> Option<u64> {
        self.peers.as_ref()?.coordinator.deadline_ms()
    }

    /// When a flow of the service was last not recorded on a peer. Unit: milliseconds.
    pub(super) fn suppressed_elsewhere_ms(&self, service: &Service) -> Option<u64> {
        let peers = self.peers.as_ref()?;
        peers.coordinator.suppressed_ms(&endpoint(service))
    }

    /// Tells those who follow it how the agreement is.
    pub(super) fn tell_agreement(&mut self) {
        let changes = self.saved.shared_digest();
        let unresolved = self.unresolved();
        let Some(peers) = &self.peers else {
            return;
        };
        let agreement = Agreement {
            behind: peers
                .coordinator
                .behind()
                .or(unresolved)
                .or_else(|| self.configs.behind()),
            services: peers.coordinator.status(),
            drift: self.configs.drift.clone(),
            refused_changes: self.configs.refused.clone(),
            changes,
        };
        self.agreement.send_if_modified(|known| {
            let is_changed = *known != agreement;
            *known = agreement;
            is_changed
        });
    }

    fn service_at(&self, endpoint: &ServiceEndpoint) -> Option<&Service> {
        self.index.service(&self.model, endpoint)
    }
}

impl Rings for Engine {
    fn services(&self) -> Vec<SharedService> {
        let services = self.model.services.values();
        services
            .filter(|service| service.has_transitions())
            .map(|service| SharedService {
                endpoint: endpoint(service),
                group: group_of(&self.model, service.vip),
                slot_count: service.ring_slots as usize,
            })
            .collect()
    }

    fn transition(&mut self, service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        let service = self.index.service(&self.model, service)?;
        self.keeper.transition_mut(service)
    }

    fn transition_to_follow(&mut self, service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        let service = self.index.service(&self.model, service)?;
        self.keeper.transition_to_follow(service)
    }

    fn address_of(&self, service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr> {
        let identity = ServiceIdentity::of(self.service_at(service)?);
        let (address, port) = self.ids.backend_at(&identity, backend_id)?;
        Some(SocketAddr::new(address, port))
    }

    fn ids_of(
        &mut self,
        service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String> {
        let service = self.service_at(service).ok_or("it has no such service")?;
        let (service, identity) = (service.clone(), ServiceIdentity::of(service));
        let unknown: Vec<SocketAddr> = backends
            .iter()
            .copied()
            .filter(|one| self.ids.backend(&identity, one.ip(), one.port()).is_none())
            .collect();
        if !unknown.is_empty() {
            self.take_in(&service, &unknown)?;
        }
        let ids = backends.iter().map(|one| {
            let id = self.ids.backend(&identity, one.ip(), one.port())?;
            Some(id.id)
        });
        let ids: Option<Vec<u16>> = ids.collect();
        ids.ok_or_else(|| "it has no room for the backends".to_owned())
    }

    fn suppressed_ms(&self, service: &ServiceEndpoint) -> Option<u64> {
        let service = self.service_at(service)?;
        let id = self.ids.service(&ServiceIdentity::of(service))?;
        self.own_suppressed_ms(id.id)
    }

    fn flow_lag_ms(&self) -> u64 {
        self.flow_lag_ms.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Makes entries for backends that a peer has flows of: those flows may come here.
    fn take_in_strangers(&mut self, peer: &str, backends: Vec<(ServiceEndpoint, SocketAddr)>) {
        let mut by_service: BTreeMap<ServiceEndpoint, Vec<SocketAddr>> = BTreeMap::new();
        for (service, backend) in backends {
            by_service.entry(service).or_default().push(backend);
        }
        for (endpoint, backends) in by_service {
            match self.ids_of(&endpoint, &backends) {
                Ok(_) => info!(
                    peer,
                    "{} backends of {}:{} have flows at the peer, and are not in this node's configuration",
                    backends.len(),
                    endpoint.vip,
                    endpoint.port
                ),
                Err(reason) => warn!(
                    peer,
                    "flows of {}:{} to {} backends that this node does not have cannot be taken over: {reason}",
                    endpoint.vip,
                    endpoint.port,
                    backends.len()
                ),
            }
        }
    }

    /// Makes entries for backends that a peer's ring or flows name and this node's configuration does not.
    fn take_in(&mut self, service: &Service, backends: &[SocketAddr]) -> Result<(), String> {
        let now_ms = monotonic_ms();
        let before = self.leaving.clone();
        let identity = ServiceIdentity::of(service);
        for backend in backends {
            let (address, port) = (backend.ip(), backend.port());
            if address.is_ipv4() != service.vip.is_ipv4() {
                return Err(format!("{address} is not of the VIP's family"));
            }
            let stranger = Leaving {
                backend: nameless(service, address, port),
                since_ms: now_ms,
                why: Why::Elsewhere,
            };
            self.leaving
                .entry((identity.clone(), address, port))
                .or_insert(stranger);
        }
        self.whole = self.with_leaving();
        self.assign_ids().map_err(|error| {
            self.restore_leaving(before);
            error.to_string()
        })
    }
}

impl Engine {
    /// What a node that has just begun cannot forward to yet; a backend that is off is not waited for long.
    fn unresolved(&self) -> Option<String> {
        let is_new = self.started.elapsed() < RESOLVING_MAX;
        let lacks_any = is_new && self.surroundings.lacks_any(&self.whole);
        lacks_any.then(|| "it does not know the Ethernet address of every next hop yet".to_owned())
    }
}

/// What a service is known by on every node.
pub(crate) fn endpoint(service: &Service) -> ServiceEndpoint {
    ServiceEndpoint {
        vip: service.vip,
        port: service.port,
        protocol: protocol_number(service.protocol),
    }
}

/// Services by where they are, so that thousands of them are not searched for each.
#[derive(Debug, Default)]
pub(super) struct EndpointIndex(HashMap<ServiceEndpoint, String>);

impl EndpointIndex {
    pub(super) fn of(model: &Model) -> Self {
        let services = model.services.values();
        Self(
            services
                .map(|service| (endpoint(service), service.name.clone()))
                .collect(),
        )
    }

    /// A service of a model, which may be a newer one than the index.
    fn service<'m>(&self, model: &'m Model, wanted: &ServiceEndpoint) -> Option<&'m Service> {
        let is_it = |service: &&Service| endpoint(service) == *wanted;
        let known = self.0.get(wanted).and_then(|name| model.services.get(name));
        known
            .filter(is_it)
            .or_else(|| model.services.values().find(is_it))
    }
}

/// The group that has a VIP.
fn group_of(model: &Model, vip: IpAddr) -> Option<GroupId> {
    let mut groups = model.vrrp.values();
    let group = groups.find(|group| group.vips.contains(&vip))?;
    Some((group.name.clone(), Family::of(vip)))
}
