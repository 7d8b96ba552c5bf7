//! What is measured: schedulers, forwarding modes, families, situations, and how many flows.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FLOW_SET_ENTRIES, FlowEntry, ForwardMode, Scheduler};
use lb_common::limits::HALF_OPEN_PROTECTED_S;
use lb_lab::datapath::frame::{Flags, Frame, Transport};
use lb_lab::datapath::kernel::{FlowTable, Lines, LoadedDatapath};
use lb_lab::datapath::tables::Peers;
use lb_lab::datapath::tables::Tables;
use lb_lab::datapath::world::{BackendSpec, INGRESS_IFINDEX, ServiceSpec, World};

use crate::flow_memory::FlowMemory;
use crate::generator::{Generator, Order, Traffic};
use crate::situation::{BACKEND_COUNT, Bursts, Situation};

/// Flow counts: one in every cache; the others as facts of life.
pub(crate) const FLOW_COUNTS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
/// Passes over all flows before the measurement: SYNs and what follows them, twice. Probation takes half
/// of a set only, and makes room for the flows of the second time once those of the first are open.
const WARM_UP_PASSES: u32 = 4;
/// SYNs of the flood before the measurement, for each entry of the table.
const FLOOD_SYNS_PER_ENTRY: u32 = 4;
/// The age of the flood's flows that make room for others. Unit: seconds.
const UNPROTECTED_AGE_S: u32 = 2 * HALF_OPEN_PROTECTED_S;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([203, 0, 113, 10]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10]),
        }
    }

    /// The first client of a crowd; the others follow, 1,024 flows each.
    fn client(self, crowd: Crowd) -> IpAddr {
        let crowd = crowd as u8;
        match self {
            Self::V4 => IpAddr::from([10, 64 + crowd, 0, 1]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, u16::from(crowd), 1]),
        }
    }

    fn backend(self, n: u16) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 0, 0, n as u8]),
            Self::V6 => IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0, n]),
        }
    }
}

/// Clients that have no flow in common.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    /// Whose flows are established.
    Established = 0,
    /// The flood that has filled probation.
    Flood = 1,
    /// Whose SYNs arrive during the flood.
    Late = 2,
}

/// A scheduler with a forwarding mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) scheduler: Scheduler,
    pub(crate) forward: ForwardMode,
    pub(crate) transport: Transport,
    pub(crate) label: &'static str,
}

const ACK: Transport = Transport::Tcp(Flags::Ack);

/// Everything that a packet of a service can meet.
pub(crate) const MODES: [Mode; 6] = [
    mode(Scheduler::Maglev, ForwardMode::Dsr, ACK, "maglev, dsr"),
    mode(Scheduler::Maglev, ForwardMode::Nat, ACK, "maglev, nat"),
    mode(
        Scheduler::RoundRobin,
        ForwardMode::Dsr,
        ACK,
        "round-robin, dsr",
    ),
    mode(
        Scheduler::RoundRobin,
        ForwardMode::Nat,
        ACK,
        "round-robin, nat",
    ),
    mode(
        Scheduler::Maglev,
        ForwardMode::Dsr,
        Transport::Udp,
        "udp maglev, dsr",
    ),
    mode(
        Scheduler::Maglev,
        ForwardMode::Nat,
        Transport::Udp,
        "udp maglev, nat",
    ),
];

const fn mode(
    scheduler: Scheduler,
    forward: ForwardMode,
    transport: Transport,
    label: &'static str,
) -> Mode {
    Mode {
        scheduler,
        forward,
        transport,
        label,
    }
}

/// What to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) family: Family,
    pub(crate) situation: Situation,
    pub(crate) flow_count: u32,
    /// Where the backends are.
    pub(crate) ifindex: u32,
    /// Capacity of the flow table, a multiple of a set.
    pub(crate) entry_count: u32,
    /// Whether there is a peer.
    pub(crate) peers: Peers,
}

impl Plan {
    /// A service with settled slots, for test runs, whose packets come in on the loopback device. The flow
    /// table is sized to twice the flows.
    pub(crate) fn new(mode: Mode, family: Family, flow_count: u32) -> Self {
        Self {
            mode,
            family,
            situation: Situation::Settled,
            flow_count,
            ifindex: INGRESS_IFINDEX,
            entry_count: (2 * flow_count).max(1024),
            peers: Peers::None,
        }
    }

    /// The row's name.
    pub(crate) fn label(&self) -> String {
        let (mode, family) = (self.mode.label, self.family.label());
        match self.situation.label() {
            Some(situation) => format!("{mode}, {situation}, {family}"),
            None => format!("{mode}, {family}"),
        }
    }

    fn service(&self) -> ServiceSpec {
        ServiceSpec {
            id: 1,
            vip: self.family.vip(),
            port: 80,
            protocol: match self.mode.transport {
                Transport::Udp => 17,
                _ => 6,
            },
            scheduler: self.mode.scheduler,
            forward: self.mode.forward,
        }
    }

    fn tables(&self) -> Tables {
        let backends: Vec<BackendSpec> = (1..=BACKEND_COUNT)
            .map(|n| BackendSpec {
                ifindex: Some(self.ifindex),
                ..BackendSpec::new(n, self.family.backend(n), 8080)
            })
            .collect();
        let mut tables = World::new().service(self.service(), &backends).build();
        for service in tables.services.values_mut() {
            service.idle_timeout_s = 3600;
        }
        for slot in tables.ring_blocks.values_mut().flatten() {
            *slot = self.situation.slot(*slot as u16).0;
        }
        for id in 1..=BACKEND_COUNT {
            tables
                .backends
                .insert(id + BACKEND_COUNT, tables.backends[&id]);
        }
        tables
    }

    fn traffic(&self, crowd: Crowd, transport: Transport, flow_count: u32) -> Traffic {
        let client = self.family.client(crowd);
        let mut frame = Frame::new(client, 1024, self.family.vip(), 80, transport);
        frame.payload.truncate(6);
        Traffic { frame, flow_count }
    }
}

/// A datapath with one service, ready to be measured.
pub(crate) struct Scenario {
    pub(crate) plan: Plan,
    /// What is measured.
    pub(crate) traffic: Traffic,
    pub(crate) datapath: LoadedDatapath,
    pub(crate) program: ProgramFd,
    pub(crate) flows: FlowMemory,
    /// What stood in the flow table before the measurement.
    before: Vec<FlowEntry>,
}

impl Scenario {
    pub(crate) fn load(plan: Plan) -> Result<Self> {
        let flow_sets = plan.entry_count / FLOW_SET_ENTRIES as u32;
        let table = FlowTable {
            set_count: flow_sets,
            peers: plan.peers,
        };
        let mut datapath = LoadedDatapath::load_sized(&plan.tables(), table, Lines::Filled)?;
        let program = datapath.program_fd()?;
        let crowd = match plan.situation {
            Situation::FloodRefused | Situation::FloodEvicting => Crowd::Late,
            _ => Crowd::Established,
        };
        let transport = plan.situation.transport(plan.mode.transport);
        Ok(Self {
            traffic: plan.traffic(crowd, transport, plan.flow_count),
            flows: FlowMemory::map(&datapath, flow_sets)?,
            before: Vec::new(),
            plan,
            datapath,
            program,
        })
    }

    pub(crate) fn label(&self) -> String {
        self.plan.label()
    }

    /// Brings the flow table into the state that the measurement begins with.
    pub(crate) fn warm_up(&mut self, generator: &mut Generator) -> Result<()> {
        let situation = self.plan.situation;
        if situation.has_established_flows() {
            self.establish(generator, WARM_UP_PASSES)?;
            self.check_flows()?;
        }
        if situation.is_under_flood() {
            self.flood(generator)?;
        }
        if situation.takes_entries() {
            self.before = self.flows.entries().to_vec();
        }
        Ok(())
    }

    /// Sends each flow's first packets, so that what follows finds it in the flow table.
    pub(crate) fn establish(&mut self, generator: &mut Generator, passes: u32) -> Result<()> {
        let transport = self.plan.mode.transport;
        let first = match transport {
            Transport::Tcp(_) => Transport::Tcp(Flags::Syn),
            other => other,
        };
        for pass in 0..passes {
            let transport = if pass % 2 == 0 { first } else { transport };
            self.send_once(
                generator,
                Crowd::Established,
                transport,
                self.plan.flow_count,
            )?;
        }
        Ok(())
    }

    fn flood(&mut self, generator: &mut Generator) -> Result<()> {
        let flow_count = FLOOD_SYNS_PER_ENTRY * self.plan.entry_count;
        let syn = Transport::Tcp(Flags::Syn);
        self.send_once(generator, Crowd::Flood, syn, flow_count)
    }

    fn send_once(
        &self,
        generator: &mut Generator,
        crowd: Crowd,
        transport: Transport,
        flow_count: u32,
    ) -> Result<()> {
        let traffic = self.plan.traffic(crowd, transport, flow_count);
        generator.run(&self.program, &traffic, Order::Sequential, flow_count)?;
        Ok(())
    }

    /// How `packets` packets are measured.
    pub(crate) fn bursts(&self, packets: u32) -> Bursts {
        let flow_count = self.plan.flow_count;
        self.plan.situation.bursts(packets, flow_count)
    }

    /// Puts the flow table back to what it was, and the flood to its age. To be called before each burst.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if self.plan.situation.takes_entries() {
            self.flows.entries().copy_from_slice(&self.before);
        }
        match self.plan.situation {
            Situation::FloodRefused => self.flows.age_half_open(0),
            Situation::FloodEvicting => self.flows.age_half_open(UNPROTECTED_AGE_S),
            _ => Ok(()),
        }
    }

    /// A figure of flows on record counts only if they are in there. One in a thousand may find no
    /// place.
    fn check_flows(&mut self) -> Result<()> {
        let is_tracked = self.plan.mode.scheduler == Scheduler::RoundRobin
            || self.plan.mode.transport == Transport::Udp
            || self.plan.situation != Situation::Settled;
        let recorded = self.flows.taken_count();
        let flow_count = self.plan.flow_count;
        let expected = if is_tracked {
            flow_count - flow_count / 1_000
        } else {
            0
        };
        ensure!(
            recorded >= expected,
            "{}: {recorded} of {flow_count} flows are on record",
            self.label()
        );
        Ok(())
    }
}
