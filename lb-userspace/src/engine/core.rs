//! The engine's state, and the one function that brings the kernel in line with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyhow::Context;
use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::agenda::Agenda;
use super::announcer::Announcer;
use super::doubts::Doubts;
use super::fitness::Fitness;
use super::handle::{EngineError, Models, Outcome, Progress};
use super::interfaces::{Interfaces, Program, Unattached};
use super::own_vips::OwnVips;
use super::peers::{Agreement, Audience, EndpointIndex, Peers};
use super::saved_services::SavedServices;
use super::shared_changes::PeerConfigs;
use super::snapshot::DatapathOrigin;
use super::steer::{Counted, LeavingBackends};
use super::surroundings::Surroundings;
use super::traffic::Traffic;
use super::vip_work::Strays;
use crate::desired::ids::{IdShortage, Ids, OutOfIds};
use crate::desired::{Desired, Steering, desired};
use crate::loader::{Adopted, Datapath, readiness};
use crate::maps::{AyaStore, MapStore};
use crate::model::{Interface, Limits, Model, Observation, OnStop};
use crate::netlink::monitor::Changes;
use crate::netlink::view::LinkHost;
use crate::pins::Pins;
use crate::reconcile::{Actual, Capacities, MapFull, Plan, apply, plan};
use crate::steering::RingKeeper;

/// Rings that follow each other in one pass: armed or moved, then what waited for it.
const PASSES_MAX: usize = 3;

/// Everything that the engine owns.
pub(super) struct Engine {
    pub(super) model: Model,
    pub(super) limits: Limits,
    pub(super) ids: Ids,
    pub(super) actual: Actual,
    pub(super) surroundings: Surroundings,
    pub(super) interfaces: Interfaces,
    pub(super) own_vips: OwnVips,
    pub(super) saved: SavedServices,
    models: watch::Sender<Arc<Model>>,
    /// Of the model that was published last.
    pub(super) index: EndpointIndex,
    pub(super) fitness: watch::Sender<Fitness>,
    pub(super) agreement: watch::Sender<Agreement>,
    /// The other nodes, if there are any.
    pub(super) peers: Option<Peers>,
    /// What is known of their configurations.
    pub(super) configs: PeerConfigs,
    /// The age of the oldest change of the flow table that a peer has not acknowledged. Unit: milliseconds.
    pub(super) flow_lag_ms: Arc<AtomicU64>,
    pub(super) announcer: Announcer,
    pub(super) store: AyaStore,
    pub(super) events: AsyncFd<RingBuf<MapData>>,
    pub(super) started: Instant,
    pub(super) config_file: Option<PathBuf>,
    pub(super) datapath: Datapath,
    /// The model, and the backends that are leaving.
    pub(super) whole: Model,
    pub(super) leaving: LeavingBackends,
    pub(super) keeper: RingKeeper,
    /// What the keeper has said last.
    pub(super) steering: BTreeMap<String, Steering>,
    /// When to look at the rings again, and to sweep the flow table.
    pub(super) agenda: Agenda,
    /// What the last sweep has found.
    pub(super) counted: Option<Counted>,
    pub(super) traffic: Traffic,
    pub(super) doubts: Doubts,
    /// What checks have found is not in force yet.
    owes_pass: bool,
    /// When rings were written last.
    rings_written: Option<Instant>,
    /// How many were, since the engine began.
    pub(super) rings_written_count: u64,
    /// Where all that outlives the engine is.
    pub(super) pins: Pins,
    /// Where it came from.
    pub(super) origin: DatapathOrigin,
    /// What a stop does, if not what the model says.
    on_stop: Option<OnStop>,
    /// VIPs that could not be added or removed in the last pass.
    stray_vips: BTreeSet<IpAddr>,
    /// What went wrong last, so that it is logged once and not every period.
    trouble: Option<String>,
    /// Routes and neighbours that the maps have no room for.
    left_out: usize,
}

/// The parts that an engine is put together from.
pub(super) struct Parts {
    pub(super) datapath: Datapath,
    pub(super) store: AyaStore,
    pub(super) events: RingBuf<MapData>,
    pub(super) own_vips: OwnVips,
    pub(super) saved: SavedServices,
    pub(super) surroundings: Surroundings,
    pub(super) limits: Limits,
    pub(super) config_file: Option<PathBuf>,
    pub(super) pins: Pins,
    pub(super) adopted: Option<Adopted>,
    pub(super) on_stop: Option<OnStop>,
    pub(super) peers: Option<Peers>,
}

impl Engine {
    /// An engine with an empty model: nothing is attached or written but what an earlier one has left.
    pub(super) fn new(parts: Parts, empty: Model) -> anyhow::Result<Self> {
        let maps = parts.store.read()?;
        let mut surroundings = parts.surroundings;
        surroundings.recall(&maps);
        let origin = DatapathOrigin::of(parts.adopted.as_ref());
        let (links, generations) = parts
            .adopted
            .map(|adopted| (adopted.links, adopted.generations))
            .unwrap_or_default();
        let (services, backends) = (parts.limits.services, parts.limits.backends);
        let (services_max, backends_max) = (id_count(services), id_count(backends));
        let ids = Ids::adopted(services_max, backends_max, &maps, &generations);
        let actual = Actual {
            maps,
            rings: BTreeMap::new(),
        };
        Ok(Self {
            whole: empty.clone(),
            leaving: LeavingBackends::new(),
            keeper: RingKeeper::default(),
            steering: BTreeMap::new(),
            agenda: Agenda::new(tokio::time::Instant::now()),
            counted: None,
            traffic: Traffic::default(),
            doubts: Doubts::default(),
            owes_pass: false,
            rings_written: None,
            rings_written_count: 0,
            models: watch::Sender::new(Arc::new(empty.clone())),
            index: EndpointIndex::default(),
            fitness: watch::Sender::new(Fitness::default()),
            agreement: watch::Sender::new(Agreement::default()),
            peers: parts.peers,
            configs: PeerConfigs::default(),
            flow_lag_ms: Arc::default(),
            model: empty,
            limits: parts.limits,
            ids,
            actual,
            surroundings,
            interfaces: Interfaces::adopting(links),
            own_vips: parts.own_vips,
            saved: parts.saved,
            announcer: Announcer::open(),
            store: parts.store,
            events: readiness::readable(parts.events).context("cannot poll the events map")?,
            started: Instant::now(),
            config_file: parts.config_file,
            datapath: parts.datapath,
            pins: parts.pins,
            origin,
            on_stop: parts.on_stop,
            stray_vips: BTreeSet::new(),
            trouble: None,
            left_out: 0,
        })
    }

    /// Puts the first model in force. If that fails, what an earlier engine has left stays as it is, as
    /// far as it was not yet changed. With peers, it is tried with less: nobody's change can keep this node from
    /// starting with what it had.
    pub(super) async fn begin(&mut self, model: Model) -> Outcome {
        self.beat();
        let nothing = self.model.clone();
        let fallbacks = self.saved.fallbacks();
        let mut begun = self.begin_with(model.clone(), &nothing).await;
        for less in fallbacks.into_iter().filter(|less| *less != model) {
            let Err(refusal) = &begun else {
                break;
            };
            warn!("changes made at run time cannot be in force, and are tried again: {refusal}");
            self.configs.owe_adoption(refusal.to_string());
            begun = self.begin_with(less, &nothing).await;
        }
        begun?;
        let refused = self.saved.laid(&self.model).refused;
        self.configs.refused.extend(refused);
        self.saved.save(&self.model);
        self.publish();
        Ok(self.warnings(&nothing))
    }

    async fn begin_with(&mut self, model: Model, nothing: &Model) -> Result<(), EngineError> {
        let found = (
            self.keeper.clone(),
            self.leaving.clone(),
            self.steering.clone(),
        );
        self.model = model;
        self.note_found();
        if let Err(refusal) = self.prepare(nothing).await {
            (self.keeper, self.leaving, self.steering) = found;
            return Err(refusal);
        }
        self.carry_out(&[], &BTreeSet::new()).await?.outcome()
    }

    /// The model in force from now on, for those who follow it.
    pub(super) fn models(&self) -> Models {
        self.models.subscribe()
    }

    /// Tells those who follow the model what it is now.
    fn publish(&mut self) {
        self.index = EndpointIndex::of(&self.model);
        self.models.send_replace(Arc::new(self.model.clone()));
    }

    /// Puts in force what checks have found, of the busiest services first and of at most this many;
    /// says what is left to do. It needs none of a change's rules, and nothing of the network: a dead
    /// backend is out of the ring within milliseconds.
    pub(super) async fn observe(
        &mut self,
        mut observations: Vec<Observation>,
        services_max: usize,
    ) -> Result<Progress, EngineError> {
        let left = self.traffic.split_off(&mut observations, services_max);
        self.rings_written = None;
        let is_news = !self.model.observe(&observations).is_empty();
        if is_news || self.owes_pass {
            // What could not be put in force is in the model all the same: told again, it is no news.
            self.owes_pass = true;
            self.whole = self.with_leaving();
            let passed = self.pass().await;
            self.saved.save(&self.model);
            passed?.outcome()?;
            self.owes_pass = false;
        }
        Ok(Progress {
            left,
            in_force_at: self.rings_written.unwrap_or_else(Instant::now),
        })
    }

    /// Notes that somebody looks after the datapath.
    pub(super) fn beat(&mut self) {
        if let Err(error) = self.store.beat() {
            warn!("{:#}", anyhow::Error::from(error));
        }
    }

    /// Puts a new model in force. If that fails, the old one is put back. A VIP that could not be added or removed
    /// before is nothing that the change has brought, and does not keep it from taking effect.
    pub(super) async fn adopt(&mut self, model: Model) -> Outcome {
        let stray_before = self.stray_vips.clone();
        let known_before = self.surroundings.hosts(&self.whole);
        let leaving = self.leaving.clone();
        let keeper = self.keeper.clone();
        let old = std::mem::replace(&mut self.model, model);
        self.note_leaving(&old);
        let taken = match self.prepare(&old).await {
            Ok(()) => {
                let strays = self.carry_out(&old.interfaces, &known_before).await;
                strays.and_then(|strays| strays.outcome_besides(&stray_before))
            }
            Err(error) => {
                // Rings set out for what is refused, and no packet has seen them.
                self.keeper = keeper;
                Err(error)
            }
        };
        let Err(refusal) = taken else {
            self.saved.save(&self.model);
            self.publish();
            return Ok(self.warnings(&old));
        };
        self.model = old;
        self.restore_leaving(leaving);
        let in_force = self.model.clone();
        if let Err(error) = self.restore(&in_force, &known_before).await {
            // The periodic pass tries again.
            error!("the former state is not wholly restored: {error}");
        }
        Err(refusal)
    }

    /// Puts the model back in force that was so before a change that failed.
    async fn restore(
        &mut self,
        in_force: &Model,
        known_hosts: &BTreeSet<LinkHost>,
    ) -> Result<(), EngineError> {
        self.prepare(in_force).await?;
        let strays = self.carry_out(&in_force.interfaces, known_hosts).await?;
        strays.outcome()
    }

    /// Finds out whether the model can take the place of `old`: nothing is touched yet.
    async fn prepare(&mut self, old: &Model) -> Result<(), EngineError> {
        self.assign_ids()?;
        let read = self.surroundings.read_for(&self.whole).await;
        self.or_reopen(read)?;
        self.refuse_taking_the_node(old)?;
        self.look(Audience::Nobody);
        let plan = self.plan(&self.desired());
        plan.map(drop).map_err(EngineError::from)
    }

    /// Puts the model in force; `known_hosts` are from before it. An interface that was wanted before
    /// and is missing now is waited for: it has nothing to do with the change.
    async fn carry_out(
        &mut self,
        known_interfaces: &[Interface],
        known_hosts: &BTreeSet<LinkHost>,
    ) -> Result<Strays, EngineError> {
        self.attach_at_once(known_interfaces)?;
        if !self.takes_over() {
            let settled = self.surroundings.settle(&self.whole, known_hosts).await;
            settled.map_err(EngineError::Failed)?;
        }
        self.pass().await
    }

    /// Whether an earlier run was killed and has left its VIPs: until the maps are filled, the host
    /// answers their packets with RST, so nothing is waited for.
    fn takes_over(&self) -> bool {
        self.actual.maps.services.is_empty() && !self.own_vips.is_empty()
    }

    /// Follows changes of the network. Trouble is logged when it begins and when it ends.
    pub(super) async fn follow(&mut self, changes: Changes) {
        let trouble = self.try_follow(changes).await.err();
        let trouble = trouble.map(|error| error.to_string());
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => error!("not all is in force, trying again: {trouble}"),
                None => info!("all is in force again"),
            }
        }
        self.trouble = trouble;
    }

    async fn try_follow(&mut self, changes: Changes) -> Result<(), EngineError> {
        let refreshed = self.refresh(changes).await;
        let failures = self.attach();
        self.interfaces.go_on_without(failures);
        self.surroundings.resolve_due(&self.whole).await;
        // Whatever is known by now is put in force.
        let passed = self.pass().await;
        refreshed.and(passed.and_then(Strays::outcome))
    }

    async fn refresh(&mut self, changes: Changes) -> Result<(), EngineError> {
        let refreshed = self.surroundings.refresh(changes, &self.whole).await;
        self.or_reopen(refreshed)
    }

    fn or_reopen(&mut self, read: anyhow::Result<()>) -> Result<(), EngineError> {
        if read.is_err() {
            // The next one gets a new connection: this one may be what is broken.
            self.surroundings
                .reopen_netlink()
                .map_err(EngineError::Failed)?;
        }
        read.map_err(EngineError::Failed)
    }

    fn attach(&mut self) -> Vec<Unattached> {
        let program = Program {
            fd: self.datapath.program.as_fd(),
            pins: &self.pins,
        };
        let (wanted, view) = (&self.model.interfaces, self.surroundings.view());
        self.interfaces.attach(program, wanted, view)
    }

    /// Refuses to go on without an interface that was not asked for before.
    fn attach_at_once(&mut self, known: &[Interface]) -> Result<(), EngineError> {
        let is_new =
            |failure: &Unattached| known.iter().all(|known| known.name != failure.interface);
        let (new, old): (Vec<_>, Vec<_>) = self.attach().into_iter().partition(is_new);
        self.interfaces.go_on_without(old);
        let refusal = new.into_iter().next();
        refusal.map_or(Ok(()), |one| Err(EngineError::Failed(one.error.into())))
    }

    /// Brings the kernel in line with the model. What is being removed loses its VIP first; what
    /// is being added gets its VIP last. A VIP that cannot be moved holds up nothing else: such are told
    /// in the end.
    async fn pass(&mut self) -> Result<Strays, EngineError> {
        let passed = self.pass_through().await;
        if let Ok(strays) = &passed {
            self.stray_vips = strays.vips();
        }
        self.tell_fitness();
        self.tell_agreement();
        passed
    }

    async fn pass_through(&mut self) -> Result<Strays, EngineError> {
        let mut strays = Strays::default();
        for _ in 0..PASSES_MAX {
            self.assign_ids()?;
            self.look(Audience::Peers);
            // A VIP that cannot be added holds up nothing else: the rings are in force.
            strays = self.pass_once().await?;
            // What depends on the ring in force, such as an end to a backend's flows, comes after it.
            if !self.note_in_force() {
                return Ok(strays);
            }
        }
        // Only now is it known when the next step of the last ring is due.
        self.agenda.look_soon(tokio::time::Instant::now());
        Ok(strays)
    }

    /// Everything is as it should be then but for these VIPs.
    async fn pass_once(&mut self) -> Result<Strays, EngineError> {
        let desired = self.desired();
        self.note_left_out(desired.left_out);
        let plan = self.plan(&desired).map_err(EngineError::from)?;
        let removed = self.remove_vips().await;
        self.apply(&plan)?;
        let added = self.add_vips().await;
        self.interfaces.release_all_but(&self.model.interfaces);
        Ok(removed.and(added))
    }

    fn note_left_out(&mut self, left_out: usize) {
        if left_out > 0 && left_out != self.left_out {
            warn!(
                "{left_out} routes and neighbours of this node are more than the datapath has room \
                 for: NAT replies that need them are dropped"
            );
        }
        self.left_out = left_out;
    }

    fn desired(&self) -> Desired {
        let network = &self.surroundings.network;
        desired(&self.whole, &self.ids, network, &self.steering)
    }

    fn plan(&self, desired: &Desired) -> Result<Plan, MapFull> {
        let capacities = Capacities {
            services: self.limits.services,
            backends: self.limits.backends,
            ring_blocks: self.limits.ring_blocks,
        };
        blocking(|| plan(desired, &self.actual, &capacities))
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), EngineError> {
        let (actual, store) = (&mut self.actual, &mut self.store);
        let applied = blocking(|| apply(plan, actual, store));
        let written = applied.map_err(|error| EngineError::Failed(error.into()))?;
        self.rings_written = written.or(self.rings_written);
        self.rings_written_count += plan.rings.len() as u64;
        Ok(())
    }

    /// The end of the daemon: the datapath goes on forwarding, or is taken off.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        match self.on_stop.unwrap_or(self.model.on_stop) {
            OnStop::Detach => self.detach().await,
            OnStop::Keep => {
                self.beat();
                info!(
                    pinned = %self.pins.directory().display(),
                    "stopped; the datapath goes on forwarding without lbd. The next start adopts it, and \
                     {} takes it off",
                    self.pins.way_off()
                );
                Ok(())
            }
        }
    }

    /// Takes everything off: VIPs, services, then the program and the maps. Goes on after a failure and
    /// reports the first.
    pub(super) async fn detach(mut self) -> anyhow::Result<()> {
        self.model.services.clear();
        // What the VRRP process was to take over, and has not, is this engine's to remove.
        self.model.vrrp.clear();
        self.whole.services.clear();
        let vips = self.remove_all_vips().await;
        let maps = self.clear_maps();
        self.interfaces.release_all_but(&[]);
        let pins = self.pins.remove().map_err(anyhow::Error::from);
        self.say_detached();
        info!("stopped, and the datapath taken off");
        let saved = self.saved.remove_file();
        vips.and(maps)
            .and(pins)
            .and(self.own_vips.remove_file())
            .and(saved)
    }

    async fn remove_all_vips(&mut self) -> anyhow::Result<()> {
        let refreshed = self.refresh(Changes::ALL).await;
        let removed = self.remove_vips().await;
        refreshed
            .and(removed.outcome())
            .map_err(anyhow::Error::from)
    }

    fn clear_maps(&mut self) -> anyhow::Result<()> {
        let plan = self.plan(&Desired::default())?;
        Ok(self.apply(&plan)?)
    }
}

/// Runs what blocks for milliseconds (ring fills, the wait for packets under way) without holding
/// up the other tasks. On this thread: another one might be in another network namespace.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Ids are 16 bits wide; the config's bounds keep limits below that.
fn id_count(limit: u32) -> u16 {
    u16::try_from(limit).unwrap_or(u16::MAX)
}

impl From<MapFull> for EngineError {
    fn from(full: MapFull) -> Self {
        let MapFull {
            map,
            used,
            max,
            needed,
            setting,
        } = full;
        Self::MapFull {
            map,
            used,
            max,
            needed,
            leaving: 0,
            setting,
        }
    }
}

pub(super) fn out_of_ids(shortage: IdShortage, limits: &Limits, leaving: usize) -> EngineError {
    use lb_common::abi::map_name::{BACKENDS, SERVICES};
    let (OutOfIds { live, needed }, map, max, leaving, setting) = match shortage {
        IdShortage::Services(out) => (out, SERVICES, limits.services, 0, "limits.services"),
        IdShortage::Backends(out) => {
            let (max, setting) = (limits.backends, "limits.backends");
            (out, BACKENDS, max, leaving, setting)
        }
    };
    EngineError::MapFull {
        map,
        used: live as u32,
        max,
        needed: needed as u32,
        leaving: leaving as u32,
        setting,
    }
}
