//! The clients of the disruption proof: thousands of connections of all kinds from one thread inside
//! the client's namespace, each of which checks every byte and who answers.

mod breakage;
mod flow;
mod group;
mod http;
mod ledger;
mod newcomers;
mod rate;
mod records;
mod world;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

pub use self::breakage::Breakage;
use self::flow::{Identity, Pace, use_flow};
pub use self::group::{Group, HasDatagrams};
use self::http::{Download, Requests, Upload};
pub use self::ledger::{Broken, Counts, Epoch, Ledger, Stream};
use self::rate::{Datagrams, Records, use_channel};
use self::records::{HalfClosed, Words};
use self::world::World;
use super::lane::{Carries, Lane};
use crate::netns::Netns;
use crate::wait::wait_until;

/// How long all flows together may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a round may take: the slowest flows wait for an answer and then prove once more.
const ROUND_TIMEOUT: Duration = Duration::from_secs(45);
/// How long what is under way at the end of an event may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
/// Datagrams that are not answered by then are lost.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What traffic there is to be.
#[derive(Clone, Debug)]
pub struct TrafficPlan {
    /// The ways through the balancer.
    pub lanes: Vec<Lane>,
    /// Flows on each of them.
    pub flows: usize,
    /// Whether UDP is among them.
    pub has_datagrams: HasDatagrams,
    /// How long idle flows are silent: less than the services' idle time-out.
    pub silence: Duration,
    /// Time between two new connections on a lane.
    pub newcomer_pause: Duration,
}

/// Traffic under way. Dropping it ends it.
#[derive(Debug)]
pub struct Traffic {
    plan: TrafficPlan,
    ledger: Arc<Ledger>,
    rounds: watch::Sender<u64>,
    opener: Option<mpsc::UnboundedSender<Identity>>,
    next_id: u64,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Traffic {
    /// Starts the clients in `netns`, opens every flow, and lets newcomers come.
    pub fn start(netns: &Netns, plan: TrafficPlan) -> Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let (rounds, round) = watch::channel(0);
        let (opener, to_open) = mpsc::unbounded_channel();
        let (entry, own_plan, own_ledger) = (netns.entry(), plan.clone(), Arc::clone(&ledger));
        let thread = thread::spawn(move || {
            entry.run(|| run_clients(&own_plan, own_ledger, round, to_open))?
        });
        let mut traffic = Self {
            plan,
            ledger,
            rounds,
            opener: Some(opener),
            next_id: 1,
            thread: Some(thread),
        };
        traffic.refill()?;
        Ok(traffic)
    }

    /// Opens flows in the place of those that broke, and waits until all stand.
    pub fn refill(&mut self) -> Result<()> {
        for lane in self.plan.lanes.clone() {
            for (group, wanted) in Group::shares(self.plan.flows, self.plan.has_datagrams) {
                for _ in self.ledger.present(lane, group)..wanted {
                    self.open(lane, group)?;
                }
            }
        }
        wait_until("all flows to stand", OPEN_TIMEOUT, || {
            let (opening, cannot_open) = self.ledger.opening_state();
            if let Some(reason) = cannot_open.first() {
                bail!("{} flows cannot be opened: {reason}", cannot_open.len());
            }
            self.check_thread()?;
            Ok((opening == 0).then_some(()))
        })
    }

    fn open(&mut self, lane: Lane, group: Group) -> Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        self.ledger.opening(lane, group);
        let opener = self.opener.as_ref().context("the clients have ended")?;
        opener
            .send(Identity { id, lane, group })
            .context("the clients have ended")
    }

    fn check_thread(&self) -> Result<()> {
        let is_running = self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        ensure!(is_running, "the clients have ended by themselves");
        Ok(())
    }

    /// Flows that stand, by lane.
    pub fn standing(&self) -> BTreeMap<Lane, usize> {
        self.ledger.standing()
    }

    /// Has every flow prove that it is alive; those that are not break.
    pub fn prove(&self) -> Result<()> {
        let round = *self.rounds.borrow() + 1;
        self.rounds
            .send(round)
            .context("the clients have ended by themselves")?;
        let proved = wait_until(
            "every flow to prove that it is alive",
            ROUND_TIMEOUT,
            || Ok(self.ledger.unproved(round).is_empty().then_some(())),
        );
        proved.with_context(|| {
            let unproved = self.ledger.unproved(round);
            let first: Vec<_> = unproved.iter().take(5).collect();
            format!(
                "{} flows neither prove nor break: {first:?} …",
                unproved.len()
            )
        })
    }

    /// Ends an event: what happens from now on belongs to the next one. Waits for the newcomers and
    /// datagrams that are under way, and returns what happened.
    pub fn end_event(&self) -> Result<BTreeMap<Lane, Counts>> {
        let epoch = self.ledger.next_epoch();
        wait_until("the last newcomers", DRAIN_TIMEOUT, || {
            let counts = self.ledger.counts(epoch);
            let under_way: u64 = counts.values().map(|counts| counts.new_under_way).sum();
            Ok((under_way == 0).then_some(()))
        })?;
        // What is not there in time is lost, and counted.
        let _lost = wait_until("the last datagrams", STREAM_DRAIN_TIMEOUT, || {
            let counts = self.ledger.counts(epoch);
            let mut streams = counts.values().flat_map(|counts| counts.streams.values());
            Ok(streams
                .all(|stream| stream.sent == stream.answered)
                .then_some(()))
        });
        Ok(self.ledger.counts(epoch))
    }

    /// Waits until so many newcomers on each lane have come and gone since the call.
    pub fn wait_newcomers(&self, count: u64) -> Result<()> {
        let epoch = self.ledger.epoch();
        let done = || -> BTreeMap<Lane, u64> {
            let counts = self.ledger.counts(epoch);
            let done = |counts: &Counts| counts.new_ok + counts.new_failed.values().sum::<u64>();
            counts
                .iter()
                .map(|(lane, counts)| (*lane, done(counts)))
                .collect()
        };
        let before = done();
        wait_until("newcomers", OPEN_TIMEOUT, || {
            let now = done();
            let is_done = self.plan.lanes.iter().all(|lane| {
                let of = |counts: &BTreeMap<Lane, u64>| counts.get(lane).copied().unwrap_or(0);
                of(&now) >= of(&before) + count
            });
            Ok(is_done.then_some(()))
        })
    }

    /// Waits for as many newcomers as come while idle flows are silent, so that each of those has spoken
    /// meanwhile.
    pub fn wait_silence(&self) -> Result<()> {
        let pauses = self.plan.silence.div_duration_f64(self.plan.newcomer_pause);
        self.wait_newcomers(pauses.ceil() as u64)
    }

    fn end(&mut self) -> Result<()> {
        self.opener = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("the clients"),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// The clients' thread: opens what it is told to until nobody tells it any more.
fn run_clients(
    plan: &TrafficPlan,
    ledger: Arc<Ledger>,
    rounds: watch::Receiver<u64>,
    mut to_open: mpsc::UnboundedReceiver<Identity>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let world = Rc::new(World::new(ledger, plan.silence, rounds));
    LocalSet::new().block_on(&runtime, async {
        for lane in &plan.lanes {
            let coming = newcomers::keep_coming(*lane, plan.newcomer_pause, Rc::clone(&world));
            tokio::task::spawn_local(coming);
        }
        while let Some(who) = to_open.recv().await {
            tokio::task::spawn_local(live(who, Rc::clone(&world)));
        }
    });
    Ok(())
}

/// Opens a flow and uses it until it breaks.
async fn live(who: Identity, world: Rc<World>) {
    let (id, lane) = (who.id, who.lane);
    let (records, http) = (lane.address(Carries::Records), lane.address(Carries::Http));
    let datagrams = lane.address(Carries::Datagrams);
    let shared = Rc::clone(&world);
    match who.group {
        Group::Active => use_flow(who, Words::open(records, id), Pace::Words, &world).await,
        Group::Idle => {
            let pace = Pace::Silent(world.silence);
            use_flow(who, Words::open(records, id), pace, &world).await;
        }
        Group::Requests => use_flow(who, Requests::open(http), Pace::Words, &world).await,
        Group::Download => {
            use_flow(who, Download::open(http, shared), Pace::Reading, &world).await;
        }
        Group::Upload => use_flow(who, Upload::open(http, shared), Pace::Words, &world).await,
        Group::HalfClosed => {
            use_flow(who, HalfClosed::open(records, id), Pace::Reading, &world).await;
        }
        Group::Datagrams => use_channel(who, Datagrams::open(datagrams, who), &world).await,
        Group::Stream => use_channel(who, Records::open(records, who), &world).await,
    }
}
