//! What is measured: schedulers, forwarding modes, families, and how many flows.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::abi::{FLOW_SET_ENTRIES, ForwardMode, Scheduler};
use lb_lab::datapath::frame::{Flags, Frame, Transport};
use lb_lab::datapath::kernel::{Capacity, Lines, LoadedDatapath};
use lb_lab::datapath::world::{BackendSpec, INGRESS_IFINDEX, ServiceSpec, World};

use crate::generator::{Generator, Order, Traffic};

/// Flow counts: one in every cache; the others as facts of life.
pub(crate) const FLOW_COUNTS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
/// Backends of the service.
const BACKEND_COUNT: u16 = 10;

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

    fn client(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 64, 0, 1]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1]),
        }
    }

    fn backend(self, n: u16) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 0, 0, n as u8]),
            Self::V6 => IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0, n]),
        }
    }
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

/// A datapath with one service, ready to be measured.
pub(crate) struct Scenario {
    pub(crate) mode: Mode,
    pub(crate) family: Family,
    pub(crate) traffic: Traffic,
    pub(crate) datapath: LoadedDatapath,
    pub(crate) program: ProgramFd,
}

impl Scenario {
    /// Loads the datapath for test runs, whose packets come in on the loopback device.
    pub(crate) fn load(mode: Mode, family: Family, flow_count: u32) -> Result<Self> {
        Self::load_on(INGRESS_IFINDEX, mode, family, flow_count)
    }

    /// Loads the datapath with all its backends on the interface `ifindex`; its flow table is sized
    /// to twice the flows.
    pub(crate) fn load_on(
        ifindex: u32,
        mode: Mode,
        family: Family,
        flow_count: u32,
    ) -> Result<Self> {
        let protocol = if mode.transport == Transport::Udp {
            17
        } else {
            6
        };
        let service = ServiceSpec {
            id: 1,
            vip: family.vip(),
            port: 80,
            protocol,
            scheduler: mode.scheduler,
            forward: mode.forward,
        };
        let backends: Vec<BackendSpec> = (1..=BACKEND_COUNT)
            .map(|n| BackendSpec {
                ifindex: Some(ifindex),
                ..BackendSpec::new(n, family.backend(n), 8080)
            })
            .collect();
        let mut tables = World::new().service(service, &backends).build();
        for service in tables.services.values_mut() {
            service.idle_timeout_s = 3600;
        }
        let flow_sets = (2 * flow_count).max(1024) / FLOW_SET_ENTRIES as u32;
        let capacity = Capacity { flow_sets };
        let mut datapath = LoadedDatapath::load_sized(&tables, capacity, Lines::Filled)?;
        let program = datapath.program_fd()?;
        let mut frame = Frame::new(family.client(), 1024, family.vip(), 80, mode.transport);
        frame.payload.truncate(6);
        Ok(Self {
            mode,
            family,
            traffic: Traffic { frame, flow_count },
            datapath,
            program,
        })
    }

    /// Sends each flow's first packet, so that what follows finds it in the flow table.
    pub(crate) fn warm_up(&mut self, generator: &mut Generator) -> Result<()> {
        let mut first = self.traffic.clone();
        if let Transport::Tcp(_) = first.frame.transport {
            first.frame.transport = Transport::Tcp(Flags::Syn);
        }
        generator.run(
            &self.program,
            &first,
            Order::Sequential,
            self.traffic.flow_count,
        )?;
        self.check_flows()
    }

    /// A figure of a service with a flow table counts only if its flows are in there. One in a
    /// thousand may find no place.
    fn check_flows(&mut self) -> Result<()> {
        let is_tracked =
            self.mode.scheduler == Scheduler::RoundRobin || self.mode.transport == Transport::Udp;
        let recorded = self.datapath.traces()?.flows.len() as u64;
        let flow_count = u64::from(self.traffic.flow_count);
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

    pub(crate) fn label(&self) -> String {
        format!("{}, {}", self.mode.label, self.family.label())
    }
}
