//! A history with all that it depends on: the same plan runs the same way everywhere and always.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use lb_common::abi::FLOW_SET_ENTRIES;

use crate::history::{Changes, Event, Load, without_long_alarms};
use crate::rng::Rng;

/// A plan for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) changes: Changes,
    pub(crate) load: Load,
    /// Clients, each with one connection at a time.
    pub(crate) client_count: usize,
    /// Backends in the model at the beginning; there is one more to add.
    pub(crate) backend_count: usize,
    pub(crate) ring_len: u32,
    pub(crate) node_count: usize,
    pub(crate) idle_timeout_s: u32,
    /// Sets of the flow table, on each node.
    pub(crate) set_count: u32,
    /// Packets of the attack in a second, on each node.
    pub(crate) attack_per_s: u64,
    /// How long things happen. Unit: milliseconds.
    pub(crate) duration_ms: u64,
    pub(crate) events: Vec<Event>,
}

/// The one stream of a seed that draws the plan.
const PLAN_STREAM: u64 = 1 << 40;

impl Plan {
    /// A small plan: dozens of milliseconds to run.
    pub(crate) fn small(seed: u64) -> Self {
        let mut rng = Rng::new(seed, PLAN_STREAM);
        let changes = rng.pick(&Changes::ALL[..10]);
        let load = rng.pick(&Load::ALL);
        Self::of(seed, changes, load)
    }

    /// A small plan of this kind.
    pub(crate) fn of(seed: u64, changes: Changes, load: Load) -> Self {
        let mut rng = Rng::new(seed, PLAN_STREAM + 1);
        let client_count = 150;
        let duration_ms = rng.within(120_000, 300_000);
        let backend_count = rng.within(3, 8) as usize;
        let mut plan = Self {
            seed,
            changes,
            load,
            client_count,
            backend_count,
            ring_len: rng.pick(&[61, 127, 251]),
            node_count: 2,
            idle_timeout_s: rng.pick(&[20, 30, 60]) as u32,
            set_count: 64,
            attack_per_s: 200,
            duration_ms,
            events: Vec::new(),
        };
        if load == Load::FullTable {
            plan.set_count = 8;
        }
        plan.draw_events();
        plan
    }

    /// The same with other numbers of clients and of what they need.
    pub(crate) fn scale_to(&mut self, client_count: usize) {
        self.client_count = client_count;
        self.backend_count = 12;
        self.ring_len = if client_count > 10_000 { 16_381 } else { 4_093 };
        let per_node = client_count / self.node_count;
        self.set_count = (per_node * 2 / FLOW_SET_ENTRIES).max(1) as u32;
        if self.load == Load::FullTable {
            self.set_count = (per_node / 2 / FLOW_SET_ENTRIES).max(1) as u32;
        }
        self.attack_per_s = per_node as u64 * 2;
        self.duration_ms = 120_000;
        self.draw_events();
    }

    /// Draws the events anew, for what the plan is now.
    pub(crate) fn draw_events(&mut self) {
        let mut rng = Rng::new(self.seed, PLAN_STREAM + 2);
        self.events = self
            .changes
            .events(&mut rng, self.backend_count, self.duration_ms);
    }
}

/// A plan as it stands in the list of regressions: what it was drawn from, and what of it is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) changes: Changes,
    pub(crate) load: Load,
    pub(crate) client_count: usize,
    /// Numbers of the events that stay.
    pub(crate) events: Vec<usize>,
}

impl Case {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            changes: plan.changes,
            load: plan.load,
            client_count: plan.client_count,
            events: (0..plan.events.len()).collect(),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::of(self.seed, self.changes, self.load);
        plan.client_count = self.client_count;
        let kept = self.events.iter();
        let events = kept
            .filter_map(|number| plan.events.get(*number).copied())
            .collect();
        plan.events = without_long_alarms(events);
        plan
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<String> = self.events.iter().map(usize::to_string).collect();
        write!(
            f,
            "seed={} changes={} load={} clients={} events={}",
            self.seed,
            word(self.changes),
            word(self.load),
            self.client_count,
            events.join(",")
        )
    }
}

fn word(value: impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let mut case = Self {
            seed: 0,
            changes: Changes::Nothing,
            load: Load::Calm,
            client_count: 0,
            events: Vec::new(),
        };
        for field in line.split_whitespace() {
            let (key, value) = field.split_once('=').context("no `=`")?;
            let number = || {
                value
                    .parse::<u64>()
                    .with_context(|| format!("{field}: no number"))
            };
            match key {
                "seed" => case.seed = number()?,
                "clients" => case.client_count = number()? as usize,
                "changes" => case.changes = parse_word(value)?,
                "load" => case.load = parse_word(value)?,
                "events" => case.events = parse_numbers(value)?,
                _ => bail!("{field}: the keys are seed, changes, load, clients and events"),
            }
        }
        Ok(case)
    }
}

fn parse_word<T: clap::ValueEnum>(word: &str) -> Result<T> {
    T::from_str(word, false).map_err(|_| anyhow::anyhow!("{word}: unknown"))
}

fn parse_numbers(list: &str) -> Result<Vec<usize>> {
    let numbers = list.split(',').filter(|number| !number.is_empty());
    numbers
        .map(|number| {
            number
                .parse()
                .with_context(|| format!("{number}: no number"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_survives_being_written_down() {
        let plan = Plan::small(7);
        let case = Case::of(&plan);
        let read: Case = case.to_string().parse().unwrap();
        assert_eq!(read, case);
        assert_eq!(read.plan(), plan);
        assert!("seed".parse::<Case>().is_err() && "colour=red".parse::<Case>().is_err());
    }
}
