//! What may happen to a program, and what its checks then say.

use lb_lab::firewall;
use lb_lab::serde_json::Value;
use nix::sys::signal::Signal;

use crate::tier::Tier;

/// Something that happens to a tier.
type Happens = Box<dyn FnMut(&mut Tier)>;

/// A trouble.
pub(crate) struct Trouble {
    /// What is the matter.
    pub(crate) name: String,
    pub(crate) begin: Happens,
    pub(crate) end: Happens,
    /// The kind of failure that is found.
    pub(crate) kind: &'static str,
    /// What is in the reason.
    pub(crate) reason: String,
    /// The services that notice; empty = all.
    services: &'static [&'static str],
}

impl Trouble {
    /// A trouble that begins and ends in this way.
    pub(crate) fn new(
        name: &str,
        (kind, reason): (&'static str, &str),
        begin: impl FnMut(&mut Tier) + 'static,
        end: impl FnMut(&mut Tier) + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            begin: Box::new(begin),
            end: Box::new(end),
            kind,
            reason: reason.to_owned(),
            services: &[],
        }
    }

    /// Only these services notice.
    pub(crate) fn of(mut self, services: &'static [&'static str]) -> Self {
        self.services = services;
        self
    }

    pub(crate) fn concerns(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.contains(&service)
    }

    /// Whether one of a backend's checks says what is the matter.
    pub(crate) fn is_told_in(&self, record: &Value) -> bool {
        let mut checks = record["checks"].as_array().into_iter().flatten();
        checks.any(|check| {
            let failure = &check["failure"];
            let reason = failure["reason"].as_str().unwrap_or_default();
            failure["kind"] == self.kind && reason.contains(&self.reason)
        })
    }
}

/// A trouble of a program of ours, which its file of modes brings about.
pub(crate) fn mode(mode: &'static str, found: (&'static str, &str)) -> Trouble {
    let begin = move |tier: &mut Tier| tier.program().misbehave(mode).unwrap();
    let end = |tier: &mut Tier| tier.program().behave().unwrap();
    Trouble::new(mode, found, begin, end)
}

/// It is killed.
pub(crate) fn stopped(found: (&'static str, &str)) -> Trouble {
    let begin = |tier: &mut Tier| tier.program().kill_all().unwrap();
    Trouble::new("stopped", found, begin, Tier::start_again)
}

/// Its kernel accepts connections, and it never answers.
pub(crate) fn hung(found: (&'static str, &str)) -> Trouble {
    let send = |signal| move |tier: &mut Tier| tier.program().signal_all(signal).unwrap();
    let (begin, end) = (send(Signal::SIGSTOP), send(Signal::SIGCONT));
    Trouble::new("hung", found, begin, end)
}

/// A packet filter on its machine does this.
pub(crate) fn filter(name: &str, rule: String, found: (&'static str, &str)) -> Trouble {
    let begin = move |tier: &mut Tier| firewall::close(tier.machine(), &rule).unwrap();
    let end = |tier: &mut Tier| firewall::open(tier.machine()).unwrap();
    Trouble::new(name, found, begin, end)
}

/// What may happen to anyone who listens on a TCP port. `waiting` is what a check does when it waits for
/// the answer to what it said first, `sent` what it does when its connection is reset then.
pub(crate) fn of_tcp(port: u16, waiting: &str, sent: &str) -> Vec<Trouble> {
    let late = format!("{waiting}: timed out after 300 ms");
    let mut troubles = vec![
        stopped(("refused", "connection refused")),
        hung(("timeout", &late)),
    ];
    troubles.extend(on_the_way(port, sent));
    troubles
}

/// What may happen to connections to a TCP port.
pub(crate) fn on_the_way(port: u16, sent: &str) -> Vec<Trouble> {
    let reset = format!("{sent}: connection reset by the server");
    vec![
        filter(
            "reset",
            format!("tcp dport {port} tcp flags & psh == psh reject with tcp reset"),
            ("closed", &reset),
        ),
        filter(
            "filtered",
            format!("tcp dport {port} drop"),
            ("timeout", "connecting: timed out after 300 ms"),
        ),
    ]
}
