//! Programs of one kind behind one or more services, and what lbd says of them.

use std::fs;
use std::time::{Duration, Instant};

use lb_lab::program::{Program, zombies_of};
use lb_lab::serde_json::Value;
use lb_lab::service;
use lb_lab::topology::VIP_V4;
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Netns, Plan, ServiceText, Topology};

use crate::trouble::Trouble;

/// How long a change may take on a busy machine. What it took is printed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// When every check is made.
pub(crate) const TIMING: &str = "interval = \"300ms\"\nfast_interval = \"100ms\"\ntimeout = \"300ms\"\n\
                                 rise = 2\nfall = 3\n";

/// The backends, of which the first gets into trouble.
pub(crate) const ALL: [&str; 2] = ["web1", "web2"];
pub(crate) const TROUBLED: &str = ALL[0];
const OTHERS: [&str; 1] = [ALL[1]];

/// A network with a machine for each of [`ALL`].
pub(crate) fn network() -> Topology {
    Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap()
}

/// One program on each machine.
pub(crate) fn on_all(
    net: &Topology,
    start: impl Fn(&str, &Netns) -> anyhow::Result<Program>,
) -> Vec<Program> {
    let each = net.backends.iter();
    each.map(|backend| start(&backend.name, &backend.netns).unwrap())
        .collect()
}

/// A service of all backends with one check: the lines of its table but for when it is made. Nobody is
/// held down for coming and going.
pub(crate) fn service(net: &Topology, name: &str, port: u16, check: &str) -> ServiceText {
    ServiceText::new(net, name, VIP_V4)
        .port(port)
        .key("hold_down", "0s")
        .check(&format!("{TIMING}{check}"))
        .backends(net, &ALL)
}

/// Programs of one kind in service. Dropping it ends lbd first, then the programs, then the network.
pub(crate) struct Tier {
    pub(crate) lbd: Lbd,
    /// Those of web1, web2.
    pub(crate) programs: Vec<Program>,
    services: Vec<String>,
    pub(crate) net: Topology,
}

impl Tier {
    /// Starts lbd with these services, after `head`, the start of its configuration.
    pub(crate) fn start(
        net: Topology,
        programs: Vec<Program>,
        head: &str,
        services: &[ServiceText],
    ) -> Self {
        let config = head.to_owned() + &service::config(&net, services);
        let lbd = Lbd::start(&net.lb, &config).unwrap();
        let listed = lbd.ctl_json(&["service", "list"]).unwrap();
        let listed = listed["services"].as_array().unwrap();
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        let services: Vec<String> = listed.iter().map(name).collect();
        assert!(!services.is_empty());
        Self {
            lbd,
            programs,
            services,
            net,
        }
    }

    /// The program that gets into trouble.
    pub(crate) fn program(&mut self) -> &mut Program {
        &mut self.programs[0]
    }

    /// Its machine.
    pub(crate) fn machine(&self) -> &Netns {
        &self.net.backends[0].netns
    }

    /// Starts it again after its end.
    pub(crate) fn start_again(&mut self) {
        let (program, backend) = (&mut self.programs[0], &self.net.backends[0]);
        program.start_again(&backend.netns).unwrap();
    }

    /// Goes through all of the troubles, one after the other; between them all is well. In the end lbd has
    /// neither more descriptors than before, nor a dead child that nobody has waited for.
    pub(crate) fn walk(&mut self, kind: &str, troubles: Vec<Trouble>) {
        self.await_well();
        let descriptors = self.descriptors();
        for mut trouble in troubles {
            let began = Instant::now();
            (trouble.begin)(self);
            let begun = began.elapsed();
            self.await_trouble(&trouble);
            let found = began.elapsed();
            self.print(&format!(
                "{kind}, {}: begun in {begun:?}, found after {found:?}",
                trouble.name
            ));
            let began = Instant::now();
            (trouble.end)(self);
            self.await_well();
            println!("{kind}, {}: back after {:?}", trouble.name, began.elapsed());
        }
        self.await_no_leak(descriptors);
    }

    /// Waits until the troubled backend is down in each service for the right reason, and gets no new flow.
    fn await_trouble(&self, trouble: &Trouble) {
        for service in self.services.iter().filter(|name| trouble.concerns(name)) {
            let what = format!(
                "{TROUBLED} of {service}, {}, to be down: {}, {:?}",
                trouble.name, trouble.kind, trouble.reason
            );
            self.await_that(&what, || {
                let record = self.record(service);
                record["health"] == "down" && trouble.is_told_in(&record)
            });
            self.await_eligible(service, &OTHERS);
        }
    }

    /// Waits until each backend of each service is up and gets new flows.
    pub(crate) fn await_well(&self) {
        for service in &self.services {
            self.await_eligible(service, &ALL);
            self.await_that(&format!("{TROUBLED} of {service} to answer"), || {
                let record = self.record(service);
                let checks = record["checks"].as_array().unwrap();
                record["health"] == "up" && checks.iter().all(|one| one["failure"].is_null())
            });
        }
    }

    /// Waits until the new flows of a service go to these backends and no other.
    pub(crate) fn await_eligible(&self, service: &str, expected: &[&str]) {
        let what = format!("the new flows of {service} to go to {expected:?}");
        self.await_that(&what, || self.eligible(service) == expected);
    }

    fn eligible(&self, service: &str) -> Vec<String> {
        let shown = self.lbd.ctl_json(&["service", "show", service]).unwrap();
        let backends = shown["backends"].as_array().unwrap();
        let eligible = backends.iter().filter(|one| one["is_eligible"] == true);
        let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
        eligible.map(name).collect()
    }

    /// Waits; in vain, and what lbd knows is shown.
    pub(crate) fn await_that(&self, what: &str, is_so: impl Fn() -> bool) {
        let waited = wait_until(what, TIMEOUT, || Ok(is_so().then_some(())));
        if let Err(error) = waited {
            self.print(what);
            panic!("{error:#}\n{}", self.lbd.log_tail());
        }
    }

    /// What is known of the troubled backend in a service.
    pub(crate) fn record(&self, service: &str) -> Value {
        let words = ["health", "show", TROUBLED, "--service", service];
        let report = self.lbd.ctl_json(&words).unwrap();
        report["backends"][0].clone()
    }

    /// Shows what an operator sees of the troubled backend.
    pub(crate) fn print(&self, what: &str) {
        let shown = self.lbd.ctl_ok(&["health", "show", TROUBLED]).unwrap();
        println!("--- {what}\n{shown}");
    }

    fn descriptors(&self) -> usize {
        let directory = format!("/proc/{}/fd", self.lbd.pid());
        fs::read_dir(directory).unwrap().count()
    }

    fn await_no_leak(&self, before: usize) {
        self.await_that(&format!("{before} descriptors"), || {
            self.descriptors() <= before
        });
        let pid = self.lbd.pid();
        self.await_that("no zombie", || zombies_of(pid).unwrap().is_empty());
    }
}
