//! The daemon's life: start, signals, stop.

use std::io;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::args::{Args, LogFormat};
use super::hints::Caller;
use super::nodes::{self, Nodes};
use super::reload::Origin;
use super::say;
use crate::control::{Monitor, Socket, server};
use crate::engine::{self, EngineHandle, Options, Started, StateFile};
use crate::events::unix_ms;
use crate::health::runner::Runner;
use crate::hooks::Hooks;
use crate::loader;
use crate::metrics::Listener;
use crate::model::{Metrics, OnStop};
use crate::peers::task::Ends;
use crate::pins::Pins;

/// Before the datapath is tried to be made anew once more, when a file for that could not be written.
const ANEW_PAUSE: Duration = Duration::from_secs(60);

/// How long requests under way may take when lbd stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the engine may take to leave the datapath to itself, or to take it off.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How the daemon has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was told to.
    Stopped,
    /// It is to begin again, with a new datapath.
    Anew,
}

/// Runs until a signal or a failure of the engine.
pub(super) fn run(args: &Args, origin: Origin) -> anyhow::Result<Ending> {
    loader::check_privilege()?;
    raise_open_files();
    let socket = Socket::bind(&args.socket)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(&socket, origin, args))
    // The runtime goes before the socket: its lock is held until everything is down.
}

/// The engine opens sockets and files while clients hold connections: there shall be descriptors for
/// both. Without them lbd works with what it has.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        warn!("cannot raise the limit of open files: {errno}");
    }
}

async fn serve(socket: &Socket, mut origin: Origin, args: &Args) -> anyhow::Result<Ending> {
    // Before anything is attached: a signal during the start is kept, not fatal.
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let membership = nodes::membership(&origin.model, socket.path())?;
    let vrrp_key = membership.as_ref().map(|one| one.secret.vrrp_key());
    let pins = Pins::of(socket.path());
    let pinned = nodes::in_words(pins.directory());
    let options = Options {
        model: origin.model.clone(),
        config_file: origin.file.clone(),
        state_file: StateFile::beside(socket.path()),
        services_file: StateFile::of_services(socket.path()),
        pins,
        on_stop: args.on_stop,
        membership,
    };
    let Started {
        handle: engine,
        models,
        ways,
        fitness,
        joined,
        doubts,
        task: mut engine_task,
    } = engine::start(options).await?;
    let monitor = Monitor::default();
    if origin.file.is_some() {
        monitor.tally.note_loaded(unix_ms());
    }
    let (anew, mut wanted_anew) = mpsc::channel(1);
    let ends = Ends {
        engine: engine.clone(),
        models: models.clone(),
        fitness,
        joined,
        vrrp_key,
        pins: pinned,
        anew,
    };
    let nodes = Nodes::start(args, ends, &monitor);
    let hooks = Hooks::start(
        models.clone(),
        monitor.events.clone(),
        monitor.tally.clone(),
    );
    let tally = monitor.tally.clone();
    let (health, events) = (monitor.health.clone(), monitor.events.clone());
    let runner = Runner::start(models, ways, doubts, engine.clone(), health, events)?;
    let metrics = start_metrics(&origin, &engine, &monitor).await?;
    let api = Api::start(socket, &engine, monitor)?;
    announce(socket, &origin, args.log_format);

    let mut ending = Ending::Stopped;
    let mut anew_paused_until = None;
    let ended = loop {
        tokio::select! {
            order = signals.next() => match order {
                Order::Reload => origin.reload(&engine, &tally).await,
                Order::Stop(signal) => {
                    info!("{signal}: stopping");
                    break None;
                }
            },
            // It ends by itself when it fails, and when it was told to take the datapath off.
            ended = &mut engine_task => break Some(ended),
            () = sleep_until(anew_paused_until.unwrap_or_else(Instant::now)), if anew_paused_until.is_some() => {
                anew_paused_until = None;
            }
            // Once: who wants it goes on saying so until the engine has ended.
            Some(hash_key) = wanted_anew.recv(),
                if matches!(ending, Ending::Stopped) && anew_paused_until.is_none() =>
            {
                match nodes::Way::prepare(socket.path(), &hash_key) {
                    Ok(way) => {
                        warn!(
                            "this node has another flow hash key than the peer that serves: its datapath is made anew"
                        );
                        nodes::make_way(&engine, socket.path(), way).await?;
                        ending = Ending::Anew;
                    }
                    // It stays behind, and whoever wants it goes on saying so.
                    Err(error) => {
                        warn!("the datapath cannot be made anew for another flow hash key: {error:#}");
                        anew_paused_until = Some(Instant::now() + ANEW_PAUSE);
                    }
                }
            }
        }
    };
    api.stop().await;
    drop((metrics, runner, hooks));
    let on_stop = args.on_stop.unwrap_or(origin.model.on_stop);
    if ended.is_none() {
        match on_stop {
            OnStop::Detach => nodes.hand_over().await,
            OnStop::Keep => nodes.outlast_vrrp().await,
        }
    }
    let ended = match ended {
        Some(ended) => ended,
        None => stop_engine(&engine, engine_task).await?,
    };
    nodes.leave().await;
    ended.context("the engine's task was cut off")??;
    Ok(ending)
}

async fn start_metrics(
    origin: &Origin,
    engine: &EngineHandle,
    monitor: &Monitor,
) -> anyhow::Result<Option<Listener>> {
    let Metrics {
        listen,
        haproxy_names,
    } = origin.model.metrics;
    let Some(address) = listen else {
        return Ok(None);
    };
    let listener = Listener::start(address, haproxy_names, engine.clone(), monitor.clone()).await?;
    info!(%address, "metrics");
    Ok(Some(listener))
}

fn announce(socket: &Socket, origin: &Origin, log_format: LogFormat) {
    let model = &origin.model;
    let interfaces: Vec<_> = model.interfaces.iter().map(|i| i.name.as_str()).collect();
    info!(
        interfaces = interfaces.join(","),
        services = model.services.len(),
        socket = %socket.path().display(),
        "ready"
    );
    if model.services.is_empty() && log_format == LogFormat::Text {
        say(&Caller::find().first_service(socket.path()));
    }
}

/// What the engine's task ended with.
type Ended = Result<anyhow::Result<()>, JoinError>;

async fn stop_engine(
    engine: &EngineHandle,
    task: JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<Ended> {
    engine.shutdown().await;
    tokio::time::timeout(STOP_TIMEOUT, task).await.map_err(|_| {
        anyhow!(
            "the engine did not stop in {} s; VIPs may be left: `ip address` shows them",
            STOP_TIMEOUT.as_secs()
        )
    })
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Order::Stop("SIGINT"),
            _ = self.hangup.recv() => Order::Reload,
        }
    }
}

/// What a signal asks for.
enum Order {
    /// By the signal of this name.
    Stop(&'static str),
    Reload,
}

/// The API's task.
struct Api {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Api {
    fn start(socket: &Socket, engine: &EngineHandle, monitor: Monitor) -> anyhow::Result<Self> {
        let listener = socket.listener().context("cannot serve the socket")?;
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            // Sent or dropped, it means the same.
            let _either = stopped.await;
        };
        let task = tokio::spawn(server::serve(listener, engine.clone(), monitor, stopped));
        Ok(Self { stop, task })
    }

    /// Lets the requests under way finish, for a while.
    async fn stop(self) {
        drop(self.stop);
        let mut task = self.task;
        match tokio::time::timeout(DRAIN_TIMEOUT, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the API's task was cut off: {error}"),
            Err(_) => {
                warn!("requests are still under way after {DRAIN_TIMEOUT:?}: cut off");
                task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_as_root_has_allowed_may_be_open() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
