//! Lets a backend die and come back under a load.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::death::Death;
use super::outcome::{CheckTiming, Moments, Outcome, SLACK};
use super::requests::{Request, Requests};
use crate::service::ServiceText;
use crate::site::Site;
use crate::topology::{Forward, Interfaces, Plan, VIP_V4};
use crate::wait::wait_until;

/// The service, and its backend that dies.
const SERVICE: &str = "web";
const VICTIM: &str = "web1";
const VICTIM_INDEX: usize = 0;
const VICTIM_NUMBER: u8 = 1;

/// Time between two requests: 600 a second.
const PAUSE: Duration = Duration::from_micros(1_666);

/// Requests before a death, so that the share of the backend is known.
const BEFORE_COUNT: usize = 300;
/// Deaths come so many requests apart from each other in the check's interval, so that not all of them meet
/// it in the same place.
const PHASE_COUNT: usize = 37;
/// Requests after what the check allows, and after a return: none of them may fail.
const AFTER_COUNT: usize = 600;
/// Requests between two questions for the state.
const LOOK_COUNT: usize = 30;
/// How long a backend may take to be up on a busy machine.
const UP_TIMEOUT: Duration = Duration::from_secs(60);

/// A site under load.
#[derive(Debug)]
pub struct Proof {
    requests: Requests,
    site: Site,
    timing: CheckTiming,
    number: usize,
}

impl Proof {
    /// Sets up three web servers with an http check of this timing, and begins the load.
    pub fn start(forward: Forward, timing: CheckTiming) -> Result<Self> {
        let check = format!("type = \"http\"\npath = \"/\"\n{}rise = 2\n", timing.keys());
        let plan = Plan::new(forward, Interfaces::One, 3);
        let site = Site::start(plan, |net| {
            let service = ServiceText::new(net, SERVICE, VIP_V4).check(&check);
            // Who dies this often is not held down here: it is to die again.
            let service = service.key("hold_down", "0s");
            vec![service.backends(net, &["web1", "web2", "web3"])]
        })?;
        wait_until("all backends to be up", UP_TIMEOUT, || {
            let health = site.lbd.ctl_json(&["health", "list"])?;
            let backends = health["backends"].as_array().cloned().unwrap_or_default();
            let are_up = backends.len() == 3 && backends.iter().all(|one| one["health"] == "up");
            Ok(are_up.then_some(()))
        })
        .with_context(|| format!("log of lbd:\n{}", site.lbd.log_tail()))?;
        site.lbd.await_ring(SERVICE)?;
        let began = Instant::now();
        let vip = SocketAddr::new(VIP_V4, 80);
        let requests = Requests::start(site.net.client.netns(), vip, PAUSE);
        // With NAT the answers to a new client are lost until its Ethernet address is known.
        requests.wait_finished(began, BEFORE_COUNT)?;
        Ok(Self {
            requests,
            site,
            timing,
            number: 0,
        })
    }

    /// One death, and the return.
    pub fn suffer(&mut self, death: Death) -> Result<Outcome> {
        self.number += 1;
        let outcome = self.try_suffer(death);
        outcome.with_context(|| format!("log of lbd:\n{}", self.site.lbd.log_tail()))
    }

    fn try_suffer(&mut self, death: Death) -> Result<Outcome> {
        // What came before belongs to the last return.
        let began = Instant::now();
        drop(self.requests.take(began)?);
        let before_count = BEFORE_COUNT + self.number * PHASE_COUNT % BEFORE_COUNT;
        self.requests.wait_finished(began, before_count)?;

        let (struck, struck_unix) = (Instant::now(), SystemTime::now());
        death.strike(&mut self.site, VICTIM_INDEX)?;
        let dead = Instant::now();
        let limit = dead + self.timing.budget() + SLACK;
        self.requests.wait_finished(limit, AFTER_COUNT)?;
        let detected = self.detected(struck_unix)?;

        let undone = Instant::now();
        death.undo(&mut self.site, VICTIM_INDEX)?;
        self.await_up()?;
        let returned = Instant::now();
        self.requests.wait_finished(returned, AFTER_COUNT)?;
        let requests = self.requests.take(Instant::now())?;
        let is_back = |request: &Request| {
            request.begun > returned && matches!(request.outcome, Ok(VICTIM_NUMBER))
        };
        ensure!(
            requests.iter().any(is_back),
            "{VICTIM} is up and gets no request"
        );
        let who = (death, self.site.net.forward_word(), VICTIM_NUMBER);
        let moments = Moments {
            struck,
            dead,
            undone,
        };
        Ok(Outcome::new(
            who,
            &self.timing,
            &moments,
            detected,
            &requests,
        ))
    }

    fn record(&self) -> Result<Value> {
        let words = ["health", "show", VICTIM, "--service", SERVICE];
        let report = self.site.lbd.ctl_json(&words)?;
        Ok(report["backends"][0].clone())
    }

    /// When lbd has said that it is down.
    fn detected(&self, struck: SystemTime) -> Result<Option<Duration>> {
        let struck_ms = struck.duration_since(UNIX_EPOCH)?.as_millis();
        let record = self.record()?;
        let history = record["history"].as_array();
        let history = history.context("`lbctl health show` without a history")?;
        let downs = history.iter().filter(|change| change["to"] == "down");
        let times_ms = downs.filter_map(|change| change["unix_ms"].as_u64());
        let mut since_ms = times_ms.filter(|unix_ms| u128::from(*unix_ms) >= struck_ms);
        Ok(since_ms.next().map(|unix_ms| {
            let after_ms = u128::from(unix_ms) - struck_ms;
            Duration::from_millis(after_ms as u64)
        }))
    }

    /// Waits until it is up, and gets its share.
    fn await_up(&self) -> Result<()> {
        let began = Instant::now();
        while self.record()?["health"] != "up" {
            if began.elapsed() > UP_TIMEOUT {
                bail!("{VICTIM} answers again, and is not up");
            }
            // lbctl is a program to start: not at every opportunity.
            self.requests.wait_finished(Instant::now(), LOOK_COUNT)?;
        }
        self.site.lbd.await_ring(SERVICE)
    }
}
