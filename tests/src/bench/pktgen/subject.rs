//! What is put on the wire: the two bare programs, and the datapath with several services.

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{ForwardMode, Scheduler};
use lb_lab::datapath::frame::{Flags, Transport};

use super::ledger::Action;
use super::source::Source;
use crate::generator::{Generator, Traffic};
use crate::scenario::{Family, Mode, Plan, Scenario};

/// A program to be measured, with the frames for it.
pub(crate) struct Subject {
    pub(crate) label: String,
    pub(crate) action: Action,
    pub(crate) program: ProgramFd,
    pub(crate) traffic: Traffic,
    /// The datapath and its counters; a bare program has none.
    scenario: Option<Scenario>,
}

/// The services, whatever the transport.
const SERVICES: [(Scheduler, ForwardMode, Family, &str); 4] = [
    (
        Scheduler::Maglev,
        ForwardMode::Dsr,
        Family::V4,
        "maglev, dsr",
    ),
    (
        Scheduler::Maglev,
        ForwardMode::Dsr,
        Family::V6,
        "maglev, dsr",
    ),
    (
        Scheduler::Maglev,
        ForwardMode::Nat,
        Family::V4,
        "maglev, nat",
    ),
    (
        Scheduler::RoundRobin,
        ForwardMode::Dsr,
        Family::V4,
        "round-robin, dsr",
    ),
];

/// Loads all of them, in the order of the table: `XDP_DROP`, `XDP_TX`, the datapaths, their flow
/// tables filled.
pub(crate) fn load_all(
    generator: &mut Generator,
    source: Source,
    balancer_ifindex: u32,
    flow_count: u32,
) -> Result<Vec<Subject>> {
    let transport = match source {
        Source::KernelPktgen => Transport::Udp,
        Source::LiveFrames => Transport::Tcp(Flags::Ack),
    };
    let mut datapaths = Vec::new();
    for (scheduler, forward, family, label) in SERVICES {
        let mode = Mode {
            scheduler,
            forward,
            transport,
            label,
        };
        let mut scenario = Scenario::load(Plan {
            ifindex: balancer_ifindex,
            ..Plan::new(mode, family, flow_count)
        })?;
        // pktgen makes other flows of IPv6 than the wrapper programs do: its first run, which is not
        // measured, brings most of them in.
        if source == Source::LiveFrames || family == Family::V4 {
            scenario.warm_up(generator)?;
        }
        datapaths.push(Subject::datapath(scenario)?);
    }
    let traffic = &datapaths[0].traffic;
    let mut subjects = vec![
        Subject::bare(generator, "XDP_DROP", "drop_all", Action::Drop, traffic)?,
        Subject::bare(generator, "XDP_TX", "transmit", Action::Transmit, traffic)?,
    ];
    subjects.append(&mut datapaths);
    Ok(subjects)
}

impl Subject {
    fn bare(
        generator: &mut Generator,
        label: &str,
        program: &str,
        action: Action,
        traffic: &Traffic,
    ) -> Result<Self> {
        Ok(Self {
            label: label.to_owned(),
            action,
            program: generator.handle(program)?,
            traffic: traffic.clone(),
            scenario: None,
        })
    }

    fn datapath(scenario: Scenario) -> Result<Self> {
        Ok(Self {
            label: match scenario.plan.mode.transport {
                Transport::Udp => format!("udp {}", scenario.label()),
                _ => scenario.label(),
            },
            action: Action::Transmit,
            program: scenario.program.try_clone()?,
            traffic: scenario.traffic.clone(),
            scenario: Some(scenario),
        })
    }

    /// Packets that the datapath says it has forwarded so far; `None` for a bare program. A drop or
    /// a packet for the host is an error: the figure would be of something else.
    pub(crate) fn forwarded_count(&mut self) -> Result<Option<u64>> {
        let Some(scenario) = &mut self.scenario else {
            return Ok(None);
        };
        let traces = scenario.datapath.counters()?;
        ensure!(
            traces.drops.is_empty() && traces.passed == 0,
            "{}: packets were not forwarded: dropped {:?}, passed to the host {}",
            self.label,
            traces.drops,
            traces.passed
        );
        let backends = traces.backends.values();
        Ok(Some(backends.map(|backend| backend.packets).sum()))
    }
}
