//! A host behind many services dies and comes back: how soon does each of them follow?

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_lab::serde_json::Value;
use lb_lab::service::{self, ServiceText};
use lb_lab::site::web_servers;
use lb_lab::topology::VIP_V4;
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, Site, Topology};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::report::Spread;

/// Of all services, the one with traffic; the last by name, so that names are not what puts it first.
const BUSY: &str = "zz-busy";

/// The others are on ports from here on.
const FIRST_PORT: u16 = 10_000;

/// lbd looks at how busy services are this often.
const TRAFFIC_PERIOD: Duration = Duration::from_secs(5);

/// Between two batches of requests.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

const TIMEOUT: Duration = Duration::from_secs(60);

/// The same question for all services: it is asked once.
const CHECK: &str = "type = \"http\"\npath = \"/\"\nport = 80\ninterval = \"500ms\"\n\
                     fast_interval = \"100ms\"\ntimeout = \"200ms\"\nrise = 2\nfall = 3";

/// How soon the services have followed. Unit: milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reaction {
    services: u16,
    what: &'static str,
    busy_ms: Spread,
    half_ms: Spread,
    last_ms: Spread,
}

/// Measures the deaths and the returns.
pub(super) fn measure(service_count: u16, deaths: u32) -> Result<[Reaction; 2]> {
    eprintln!("measuring {service_count} services, {deaths} deaths");
    let mut site = site(service_count)?;
    for backend in ["web1", "web2", "web3"] {
        await_all(&site, backend, "up", service_count)?;
    }
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..deaths {
        busy(&site)?;
        site.nginx[0].process().signal_all(Signal::SIGSTOP)?;
        taken[0].push(await_all(&site, "web1", "down", service_count)?);
        site.nginx[0].process().signal_all(Signal::SIGCONT)?;
        taken[1].push(await_all(&site, "web1", "up", service_count)?);
    }
    let [deaths, returns] = taken;
    Ok([
        summary(service_count, "death", &deaths),
        summary(service_count, "return", &returns),
    ])
}

fn site(service_count: u16) -> Result<Site> {
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3))?;
    let nginx = web_servers(&net)?;
    let service = |name: &str, port| {
        let service = ServiceText::new(&net, name, VIP_V4).port(port);
        service
            .check(CHECK)
            .backends(&net, &["web1", "web2", "web3"])
    };
    let others = (FIRST_PORT..).take(usize::from(service_count) - 1);
    let mut services: Vec<ServiceText> = others
        .map(|port| service(&format!("s{port}"), port))
        .collect();
    services.push(service(BUSY, 80));
    let limits = "[limits]\nring_blocks = 2048\n";
    let lbd = Lbd::start(
        &net.lb,
        &(limits.to_owned() + &service::config(&net, &services)),
    )?;
    Ok(Site { lbd, nginx, net })
}

/// Requests to one service for as long as it takes lbd to notice.
fn busy(site: &Site) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < TRAFFIC_PERIOD * 2 {
        site.net
            .client
            .http_get_many(SocketAddr::new(VIP_V4, 80), 20)?;
        // Each leaves a port in TIME_WAIT for a minute.
        thread::sleep(BATCH_PAUSE);
    }
    Ok(())
}

/// Waits until all services have followed; returns how long after the answer that decided each of them did,
/// the busy one last.
fn await_all(site: &Site, backend: &str, health: &str, service_count: u16) -> Result<Vec<f64>> {
    wait_until(
        &format!("{backend} to be {health} everywhere"),
        TIMEOUT,
        || {
            let report = site.lbd.ctl_json(&["health", "show", backend])?;
            let backends = report["backends"].as_array().context("no backends")?;
            let taken: Option<Vec<f64>> =
                backends.iter().map(|one| after_ms(one, health)).collect();
            Ok(taken.filter(|taken| taken.len() == usize::from(service_count)))
        },
    )
}

fn after_ms(backend: &Value, health: &str) -> Option<f64> {
    let last = backend["history"].as_array()?.last()?;
    let is_reached = last["to"] == health;
    is_reached.then(|| last["in_force_after_ms"].as_f64())?
}

fn summary(services: u16, what: &'static str, runs: &[Vec<f64>]) -> Reaction {
    let spread =
        |pick: &dyn Fn(&[f64]) -> f64| Spread::of(runs.iter().map(|run| pick(run)).collect());
    let sorted = |run: &[f64]| {
        let mut run = run.to_vec();
        run.sort_by(f64::total_cmp);
        run
    };
    Reaction {
        services,
        what,
        busy_ms: spread(&|run| run[run.len() - 1]),
        half_ms: spread(&|run| sorted(run)[run.len() / 2]),
        last_ms: spread(&|run| sorted(run)[run.len() - 1]),
    }
}

/// The reactions, for people.
pub(super) fn table(reactions: &[Reaction]) -> String {
    let cell = |spread: &Spread| {
        let Spread { median, min, max } = spread;
        format!("{median:.0} ({min:.0}\u{2013}{max:.0})")
    };
    let mut text = format!(
        "ms from the answer that decides to the ring in force: median (min\u{2013}max)\n\
         {:<10}{:<10}{:>22}{:>22}{:>22}\n",
        "services", "event", "the one with traffic", "half of them", "all of them"
    );
    for one in reactions {
        text += &format!(
            "{:<10}{:<10}{:>22}{:>22}{:>22}\n",
            one.services,
            one.what,
            cell(&one.busy_ms),
            cell(&one.half_ms),
            cell(&one.last_ms)
        );
    }
    text
}
