//! A small world around the flow table: a Maglev TCP service whose every slot is in the same state,
//! a UDP service that pins its flows, and clients by number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{Backend, FLOW_SET_ENTRIES, FlowState, ForwardMode, Scheduler, Service, Slot};
use lb_common::datapath::{Verdict, flow, process};
use lb_common::drop_reason::DropReason;
use lb_common::hash::{self, FlowTuple};
use lb_lab::datapath::frame::{Flags, Frame, Transport};
use lb_lab::datapath::memory::{MemoryKernel, MemoryPacket};
use lb_lab::datapath::tables::{FLOW_SETS, Tables};
use lb_lab::datapath::world::{BackendSpec, INGRESS_IFINDEX, ServiceSpec, World, backend_mac};

/// Entries of the table.
pub(crate) const CAPACITY: u32 = FLOW_SETS * FLOW_SET_ENTRIES as u32;
/// Where new flows of the TCP service go.
pub(crate) const CURRENT: u16 = 7;
/// Where its flows went before the slots began to move.
pub(crate) const PREVIOUS: u16 = 8;
/// A moving slot.
pub(crate) const MOVING: Slot = Slot::in_transition(CURRENT, PREVIOUS);
/// Of both services. Unit: seconds.
pub(crate) const IDLE_TIMEOUT_S: u32 = 300;

pub(crate) const OPEN: FlowState = FlowState::OPEN;
pub(crate) const HALF_OPEN: FlowState = FlowState::HALF_OPEN;
pub(crate) const LEARNED: FlowState = FlowState::LEARNED;

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
const PORT: u16 = 80;
const CLIENT_PORT: u16 = 40_000;
const TCP_SERVICE: u16 = 3;
const UDP_SERVICE: u16 = 4;
const UDP_BACKEND: u16 = 20;
/// The clock's second 0. So that its wrap in a record's 24 bits is crossed by the tests.
const START_S: u32 = (1 << 24) - 30;

/// What the flow table knows of a flow: its backend and its state.
pub(crate) type Entry = (u16, FlowState);

/// The world, and its clock.
pub(crate) struct Stage {
    kernel: MemoryKernel,
    tcp: Service,
    /// The flow table as it was when somebody last looked, until the next packet.
    flows: RefCell<Option<BTreeMap<u64, Entry>>>,
}

impl Stage {
    /// Every slot of the TCP service is `slot`; both its backends are up.
    pub(crate) fn new(slot: Slot) -> Self {
        Self::with(slot, |_| ())
    }

    /// As `new`, with something changed before the first packet.
    pub(crate) fn with(slot: Slot, change: impl FnOnce(&mut Tables)) -> Self {
        let mut tables = tables();
        for word in tables.ring_blocks.get_mut(&0).expect("a ring") {
            *word = slot.0;
        }
        change(&mut tables);
        let services = &mut tables.services.values();
        let tcp = *services
            .find(|service| service.id == TCP_SERVICE)
            .expect("the TCP service");
        Self {
            kernel: MemoryKernel::new(tables, START_S),
            tcp,
            flows: RefCell::default(),
        }
    }

    /// Changes a backend's entry.
    pub(crate) fn change_backend(&mut self, id: u16, change: impl FnOnce(&mut Backend)) {
        change(self.kernel.tables.backends.get_mut(&id).expect("a backend"));
    }

    /// Sets the clock.
    pub(crate) fn at(&self, second: u32) -> &Self {
        self.kernel.now_s.set(START_S + second);
        self
    }

    /// Sets the clock of a machine that has just booted.
    pub(crate) fn since_boot(&self, second: u32) -> &Self {
        self.kernel.now_s.set(second);
        self
    }

    /// A client's SYN. Returns the backend that it went to, as do the following.
    pub(crate) fn syn(&self, client: u32) -> u16 {
        self.send(client, Transport::Tcp(Flags::Syn))
    }

    /// A client's segment.
    pub(crate) fn ack(&self, client: u32) -> u16 {
        self.send(client, Transport::Tcp(Flags::Ack))
    }

    /// A client's FIN.
    pub(crate) fn fin(&self, client: u32) -> u16 {
        self.send(client, Transport::Tcp(Flags::FinAck))
    }

    /// A RST in a client's name.
    pub(crate) fn rst(&self, client: u32) -> u16 {
        self.send(client, Transport::Tcp(Flags::Rst))
    }

    /// A client's datagram.
    pub(crate) fn datagram(&self, client: u32) -> u16 {
        self.send(client, Transport::Udp)
    }

    /// A client's handshake.
    pub(crate) fn open(&self, client: u32) {
        assert_eq!((self.syn(client), self.ack(client)), (CURRENT, CURRENT));
    }

    /// Whether a client's segment waits for a peer's word of its flow.
    pub(crate) fn waits(&self, client: u32) -> bool {
        let (verdict, _) = self.process(client, Transport::Tcp(Flags::Ack));
        verdict == Verdict::Drop(DropReason::FlowUnknown)
    }

    fn send(&self, client: u32, transport: Transport) -> u16 {
        let (verdict, bytes) = self.process(client, transport);
        assert_eq!(verdict, Verdict::Transmit, "client {client}");
        let id = u16::from_be_bytes([bytes[4], bytes[5]]);
        assert_eq!(bytes[..6], backend_mac(id));
        id
    }

    fn process(&self, client: u32, transport: Transport) -> (Verdict, Vec<u8>) {
        let mut packet = MemoryPacket {
            bytes: Frame::new(address(client), CLIENT_PORT, VIP, PORT, transport).bytes(),
            ingress_ifindex: INGRESS_IFINDEX,
        };
        self.flows.take();
        (process(&mut packet, &self.kernel), packet.bytes)
    }

    /// What is on record, by fingerprint.
    pub(crate) fn flows(&self) -> BTreeMap<u64, Entry> {
        let mut flows = self.flows.borrow_mut();
        let flows = flows.get_or_insert_with(|| self.kernel.traces().flows);
        flows.clone()
    }

    /// What is on record of a client's TCP flow.
    pub(crate) fn entry(&self, client: u32) -> Option<Entry> {
        let fingerprint = flow::fingerprint(&self.tcp, flow_hash(&self.kernel.tables, client));
        self.flows().get(&fingerprint).copied()
    }

    /// Whether a flow of the TCP service was noted that should have been on record and is not.
    pub(crate) fn is_suppressed(&self) -> bool {
        self.kernel.traces().suppressed.contains(&TCP_SERVICE)
    }
}

/// Clients whose TCP flows all have the same set for their first and for their second: for a table of
/// eight entries.
pub(crate) fn clients_of_one_set<const COUNT: usize>() -> [u32; COUNT] {
    let tables = tables();
    let service = tables
        .services
        .values()
        .find(|service| service.id == TCP_SERVICE)
        .expect("the TCP service");
    let mut by_set: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for client in 0..1 << 24 {
        let fingerprint = flow::fingerprint(service, flow_hash(&tables, client));
        let (first, second) = flow::sets(fingerprint, FLOW_SETS);
        if first != second {
            continue;
        }
        let clients = by_set.entry(first).or_default();
        clients.push(client);
        if let Ok(clients) = clients[..].try_into() {
            return clients;
        }
    }
    panic!("no set is the only one of {COUNT} clients");
}

fn tables() -> Tables {
    let tcp = ServiceSpec {
        id: TCP_SERVICE,
        vip: VIP,
        port: PORT,
        protocol: 6,
        scheduler: Scheduler::Maglev,
        forward: ForwardMode::Dsr,
    };
    let udp = ServiceSpec {
        id: UDP_SERVICE,
        protocol: 17,
        ..tcp
    };
    let backend = |id: u16| BackendSpec::new(id, IpAddr::from([10, 0, 0, id as u8]), PORT);
    let world = World::new()
        .service(tcp, &[CURRENT, PREVIOUS].map(backend))
        .service(udp, &[backend(UDP_BACKEND)]);
    let mut tables = world.build();
    for service in tables.services.values_mut() {
        service.idle_timeout_s = IDLE_TIMEOUT_S;
    }
    tables
}

fn address(client: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 + client))
}

fn flow_hash(tables: &Tables, client: u32) -> u64 {
    let tuple = FlowTuple {
        source: address(client).into(),
        destination: VIP.into(),
        ports: u32::from(CLIENT_PORT.to_be()) << 16 | u32::from(PORT.to_be()),
    };
    hash::flow(&tuple, &tables.hash_key)
}
