//! Our balancers beside classical ones, under the same events.

use std::fmt;

use crate::history::{Action, Changes, Event, Load};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::rules::Rules;
use crate::runner;

/// Whether a scenario ends with the first node's clients coming by way of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Same,
    /// After half of the time, all that the first node knew is lost.
    Change,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    name: &'static str,
    changes: Changes,
    load: Load,
    ways: Ways,
}

const fn scenario(name: &'static str, changes: Changes, load: Load) -> Scenario {
    Scenario {
        name,
        changes,
        load,
        ways: Ways::Same,
    }
}

const fn with_change_of_balancer(name: &'static str, changes: Changes) -> Scenario {
    Scenario {
        ways: Ways::Change,
        ..scenario(name, changes, Load::Calm)
    }
}

pub(crate) const SCENARIOS: [Scenario; 17] = [
    scenario("drain and ready", Changes::Drain, Load::Calm),
    scenario("weights", Changes::Weight, Load::Calm),
    scenario("add and remove", Changes::AddRemove, Load::Calm),
    scenario("A, B, A", Changes::Flap, Load::Calm),
    scenario("death and revival", Changes::Death, Load::Calm),
    scenario("false death, 1 to 10 s", Changes::FalseDeath, Load::Calm),
    scenario(
        "drain, then the taker down",
        Changes::DrainTakerDown,
        Load::Calm,
    ),
    scenario("most are drained", Changes::DrainMost, Load::Calm),
    scenario("a mix every 3 s", Changes::Mix, Load::Calm),
    scenario("drain, SYN flood", Changes::Drain, Load::SynFlood),
    scenario("drain, ACK flood", Changes::Drain, Load::AckFlood),
    scenario("drain, two-packet flood", Changes::Drain, Load::TwoPackets),
    scenario(
        "drain, forged SYN, FIN, RST",
        Changes::Drain,
        Load::SpoofedClients,
    ),
    scenario("drain, table too small", Changes::Drain, Load::FullTable),
    scenario("nothing", Changes::Nothing, Load::SynFlood),
    with_change_of_balancer("nothing, other balancer", Changes::Nothing),
    with_change_of_balancer("drain, other balancer", Changes::Drain),
];

impl Scenario {
    /// A plan of this scenario: larger than those that look for holes.
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::of(seed, self.changes, self.load);
        plan.client_count = 1_000;
        plan.backend_count = 12;
        plan.ring_len = 4_093;
        plan.idle_timeout_s = 60;
        plan.duration_ms = 300_000;
        plan.attack_per_s = 2_000;
        plan.set_count = if self.load == Load::FullTable {
            32
        } else {
            256
        };
        plan.draw_events();
        if self.ways == Ways::Change {
            plan.events.push(Event {
                at_ms: plan.duration_ms / 2,
                action: Action::ChangeBalancer,
            });
        }
        plan
    }

    /// Runs it with both.
    pub(crate) fn run(&self, seed_count: u64) -> Row {
        let total = |run: &(dyn Fn(&Plan) -> Outcome + Sync)| {
            let mut total = Outcome::default();
            let take = |_, outcome: Outcome| total.add(&outcome);
            runner::run_all(0..seed_count, |seed| self.plan(seed), run, take);
            total
        };
        Row {
            name: self.name,
            ours: total(&|plan| runner::run(plan, &Rules::default())),
            classical: total(&runner::run_classical),
        }
    }
}

/// What came of a scenario.
pub(crate) struct Row {
    name: &'static str,
    ours: Outcome,
    classical: Outcome,
}

/// The table's head, in Markdown.
pub(crate) const HEAD: &str = "\
| per million connections | flows broken: ours | classical | handshakes broken: ours | classical |
|---|---:|---:|---:|---:|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |count: usize, outcome: &Outcome| {
            count as f64 * 1e6 / outcome.established_count.max(1) as f64
        };
        let flows = |outcome: &Outcome| rate(outcome.broken_flows(), outcome);
        let handshakes = |outcome: &Outcome| rate(outcome.broken_handshakes(), outcome);
        write!(
            f,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            self.name,
            flows(&self.ours),
            flows(&self.classical),
            handshakes(&self.ours),
            handshakes(&self.classical)
        )
    }
}
