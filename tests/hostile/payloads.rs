//! What a peer may send that has the secret and has lost its mind: it may say wrong things of flows, but nothing
//! breaks, and nothing grows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lb_common::abi::{FlowRecord, FlowState};
use lb_common::hash;
use lb_userspace::sync::kind;
use lb_userspace::sync::replicate::dictionary::{BackendEndpoint, Dictionary, ServiceEndpoint};
use lb_userspace::sync::replicate::memory::MemoryTable;
use lb_userspace::sync::replicate::replicator::{Outlet, Replicator};
use lb_userspace::sync::replicate::table::Now;

use crate::Tally;
use crate::rng::Rng;

const SET_COUNT: u32 = 256;
const SESSION: u64 = 1;
/// One in so many is genuine.
const GENUINE_EVERY: usize = 8;

/// What a node has sent.
#[derive(Default)]
struct Sent {
    frames: Vec<(u16, Vec<u8>)>,
    datagrams: Vec<(u16, Vec<u8>)>,
}

impl Outlet for Sent {
    fn datagram(&mut self, _session: u64, kind: u16, payload: &[u8]) {
        self.datagrams.push((kind, payload.to_vec()));
    }

    fn frame(&mut self, _session: u64, kind: u16, payload: Vec<u8>) {
        self.frames.push((kind, payload));
    }
}

fn dictionary() -> Dictionary {
    let service = ServiceEndpoint {
        vip: IpAddr::from([203, 0, 113, 10]),
        port: 80,
        protocol: 6,
    };
    let backend = |id: u16| {
        let endpoint = BackendEndpoint {
            service_id: 7,
            generation: 1,
            address: SocketAddr::from(([10, 0, 0, 1], 8000 + id)),
        };
        (id, endpoint)
    };
    Dictionary {
        services: BTreeMap::from([(7, service)]),
        backends: (1..20).map(backend).collect(),
    }
}

/// Sends so many payloads to a node, between those of a genuine one.
pub(crate) fn attack(rng: &mut Rng, messages: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut now = Now { us: 1_000_000_000 };
    let mut nodes = [Replicator::new(), Replicator::new()];
    let mut sent = [Sent::default(), Sent::default()];
    for (node, sent) in nodes.iter_mut().zip(&mut sent) {
        node.attach(MemoryTable::new(SET_COUNT, dictionary()), now);
        node.session_up(SESSION, now, sent);
    }
    let capacity = SET_COUNT as usize * lb_common::abi::FLOW_SET_ENTRIES;
    while tally.hostile < messages {
        now.us += 1_000;
        write(rng, &mut nodes[0], now);
        for (node, sent) in nodes.iter_mut().zip(&mut sent) {
            node.tick(now, sent);
        }
        for to in 0..2 {
            let sent = std::mem::take(&mut sent[1 - to]);
            for message in sent.frames {
                deliver(
                    rng,
                    &mut nodes[to],
                    message,
                    Channel::Frame,
                    now,
                    &mut tally,
                );
            }
            for message in sent.datagrams {
                deliver(
                    rng,
                    &mut nodes[to],
                    message,
                    Channel::Datagram,
                    now,
                    &mut tally,
                );
            }
            let table = nodes[to].table();
            ensure!(
                table.is_some_and(|table| table.len() <= capacity),
                "the table has grown"
            );
        }
    }
    Ok(tally)
}

/// How a payload comes.
#[derive(Clone, Copy)]
enum Channel {
    Frame,
    Datagram,
}

/// Some flows change.
fn write(rng: &mut Rng, node: &mut Replicator<MemoryTable>, now: Now) {
    let Some(table) = node.table_mut() else {
        return;
    };
    for _ in 0..rng.below(20) {
        let flow = hash::mix(rng.below(500) as u64 + 2);
        let backend_id = 1 + rng.below(19) as u16;
        let record = FlowRecord::new(backend_id, 1, now.s() + 900, FlowState::OPEN);
        // There may be no room, for the peer has filled the table.
        table.write(flow, 7, record);
    }
}

/// A genuine payload, and some hostile ones that are made of it.
fn deliver(
    rng: &mut Rng,
    node: &mut Replicator<MemoryTable>,
    (kind, payload): (u16, Vec<u8>),
    channel: Channel,
    now: Now,
    tally: &mut Tally,
) {
    let mut take = |kind: u16, payload: &[u8]| match channel {
        Channel::Frame => node.take_frame(SESSION, kind, payload),
        Channel::Datagram => node.take_datagram(SESSION, kind, payload, now),
    };
    for _ in 0..GENUINE_EVERY {
        let mut hostile = payload.clone();
        rng.spoil(&mut hostile);
        let kinds = [kind, kind::FLOWS, kind::FLOWS_ACK, kind::DICTIONARY, 9];
        let kind = kinds[rng.below(kinds.len() * 2).saturating_sub(kinds.len())];
        match take(kind, &hostile) {
            Ok(()) => tally.refuse("(well formed: it may be as the peer says)"),
            Err(malformed) => tally.refuse(malformed),
        }
    }
    // By now the peer may have said things that contradict it.
    let _ = take(kind, &payload);
    tally.genuine += 1;
}
