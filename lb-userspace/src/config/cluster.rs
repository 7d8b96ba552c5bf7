//! `[cluster]` and `[[vrrp]]` in the file.

use std::net::IpAddr;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use crate::model::draft::{ClusterDraft, Field, PeerDraft, TrackDraft, VrrpDraft};
use crate::model::text::{self, TextError};
use crate::model::{Section, files};

const CLUSTER: &[&str] = &["listen", "secret_file", "heartbeat", "patience", "peer"];
const PEER: &[&str] = &["name", "address"];
const VRRP: &[&str] = &[
    "name",
    "interface",
    "vrid",
    "vips",
    "priority",
    "interval",
    "preempt",
    "preempt_delay",
    "peers",
    "source",
    "accept",
    "virtual_mac",
    "authenticate",
    "track",
];
const TRACK: &[&str] = &["interface", "service", "live_backends", "weight"];

/// Reads `[cluster]`, if there is one.
pub(super) fn read_cluster<'t>(root: &'t DeTable<'t>, reader: &mut Reader) -> Option<ClusterDraft> {
    let table = reader.table(root, "cluster")?;
    let cluster = reader.open(Section::Cluster, table, CLUSTER);
    let mut draft = ClusterDraft {
        listen: reader.socket_address(cluster, "listen"),
        secret_file: reader.text(
            cluster,
            "secret_file",
            "/etc/lbd/cluster.key",
            files::secret_file,
        ),
        heartbeat_ms: reader.duration_ms(cluster, "heartbeat"),
        patience_s: reader.duration_s(cluster, "patience"),
        peers: Vec::new(),
    };
    let peers = reader.tables(cluster, "peer", "[[cluster.peer]]");
    for (index, table) in peers.into_iter().enumerate() {
        let peer = reader.open(Section::Peer(index), table, PEER);
        draft.peers.push(PeerDraft {
            name: reader.string(peer, "name"),
            address: reader.socket_address(peer, "address"),
        });
    }
    Some(draft)
}

/// Reads each `[[vrrp]]`.
pub(super) fn read_vrrp<'t>(root: &'t DeTable<'t>, reader: &mut Reader) -> Vec<VrrpDraft> {
    let groups = reader.tables(root, "vrrp", "[[vrrp]]");
    let numbered = groups.into_iter().enumerate();
    numbered
        .map(|(index, table)| read_group(index, table, reader))
        .collect()
}

fn read_group<'t>(
    index: usize,
    table: (&'t DeTable<'t>, Range<usize>),
    reader: &mut Reader,
) -> VrrpDraft {
    let group = reader.open(Section::Vrrp(index), table, VRRP);
    let mut draft = VrrpDraft {
        name: reader.string(group, "name"),
        interface: reader.string(group, "interface"),
        vrid: reader.integer(group, "vrid"),
        vips: read_addresses(group, "vips", reader),
        priority: reader.integer(group, "priority"),
        interval_ms: reader.duration_ms(group, "interval"),
        preempt: reader.boolean(group, "preempt"),
        preempt_delay_ms: reader.duration_ms(group, "preempt_delay"),
        peers: read_addresses(group, "peers", reader),
        sources: read_addresses(group, "source", reader),
        accept: reader.boolean(group, "accept"),
        virtual_mac: reader.boolean(group, "virtual_mac"),
        authenticate: reader.boolean(group, "authenticate"),
        tracks: Vec::new(),
    };
    let tracks = reader.tables(group, "track", "[[vrrp.track]]");
    for (position, table) in tracks.into_iter().enumerate() {
        let track = reader.open(Section::Track(index, position), table, TRACK);
        draft.tracks.push(TrackDraft {
            interface: reader.string(track, "interface"),
            service: reader.string(track, "service"),
            live_backends: reader.integer(track, "live_backends"),
            weight: reader.integer(track, "weight"),
        });
    }
    draft
}

/// Reads one address, or a list of them.
fn read_addresses(
    table: &DeTable<'_>,
    key: &'static str,
    reader: &mut Reader,
) -> Field<Vec<IpAddr>> {
    let example = "[\"203.0.113.10\", \"2001:db8::10\"]";
    reader.read(table, key, "a list of addresses", example, |value| {
        let address = |value: &DeValue<'_>| value.as_str().map(text::address);
        match value.as_array() {
            None => Some(address(value)?.map(|one| vec![one])),
            Some(list) => {
                let read = list.iter().map(|one| address(one.get_ref()));
                let read: Option<Vec<Result<IpAddr, TextError>>> = read.collect();
                Some(read?.into_iter().collect())
            }
        }
    })
}
