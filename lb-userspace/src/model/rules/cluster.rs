//! Rules about `[cluster]`: this node's end of the sync link, and its peers.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Findings, Number, address, names};
use crate::model::Section;
use crate::model::cluster::PEERS_MAX;
use crate::model::draft::{ClusterDraft, Draft, Field};
use crate::model::problem::{Kind, Place, Problem};

/// Heartbeats: faster ones cost more than they tell, slower ones tell too late. Unit: milliseconds.
const HEARTBEAT_RANGE: (i64, i64) = (10, 10_000);

/// Patience: from a restart of a daemon to a day. Unit: seconds.
const PATIENCE_RANGE: (i64, i64) = (1, 24 * 3600);

/// Heartbeats that a peer may miss at least before its silence means that it is gone.
const PATIENCE_HEARTBEATS_MIN: i64 = 10;

const SUBJECT: &str = "cluster";

/// Checks `[cluster]`, if there is one.
pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    let Some(cluster) = &draft.cluster else {
        return;
    };
    check_listen(cluster, findings);
    findings.require(
        &cluster.secret_file,
        Section::Cluster,
        "secret_file",
        SUBJECT,
    );
    check_times(cluster, findings);
    check_peers(draft, cluster, findings);
}

fn check_listen(cluster: &ClusterDraft, findings: &mut Findings) {
    findings.require(&cluster.listen, Section::Cluster, "listen", SUBJECT);
    let place = Section::Cluster.key("listen");
    let Some(listen) = cluster.listen.given() else {
        return;
    };
    if let Some(fault) = unfit(*listen) {
        let message = format!("listen {listen} {fault}");
        let help = "write this node's address on the sync link and a port, such as 10.0.9.1:7946";
        findings.push(Problem::new(Kind::Invalid, place, SUBJECT, message).help(help));
    }
}

/// Why nobody can be reached there.
fn unfit(address: SocketAddr) -> Option<&'static str> {
    if address.port() == 0 {
        return Some("has the port 0");
    }
    // Whoever tries two nodes on one machine may use loopback addresses.
    match address.ip() {
        ip if ip.is_loopback() => None,
        ip => address::unfit(ip),
    }
}

fn check_times(cluster: &ClusterDraft, findings: &mut Findings) {
    let times = [
        (
            "heartbeat",
            cluster.heartbeat_ms(),
            HEARTBEAT_RANGE,
            " milliseconds",
        ),
        ("patience", cluster.patience_s(), PATIENCE_RANGE, " seconds"),
    ];
    for (key, value, (low, high), unit) in times {
        let number = Number {
            place: Section::Cluster.key(key),
            subject: SUBJECT,
            noun: key,
            unit,
        };
        findings.range(value, low..=high, number);
    }
    let (Some(heartbeat_ms), Some(patience_s)) = (cluster.heartbeat_ms(), cluster.patience_s())
    else {
        return;
    };
    let is_in_range = (HEARTBEAT_RANGE.0..=HEARTBEAT_RANGE.1).contains(&heartbeat_ms)
        && (PATIENCE_RANGE.0..=PATIENCE_RANGE.1).contains(&patience_s);
    if is_in_range && patience_s * 1_000 < heartbeat_ms * PATIENCE_HEARTBEATS_MIN {
        let message = format!(
            "a patience of {patience_s} s is less than {PATIENCE_HEARTBEATS_MIN} heartbeats of {heartbeat_ms} ms"
        );
        let place = Section::Cluster.key("patience");
        findings.push(
            Problem::new(Kind::Conflict, place, SUBJECT, message)
                .against(Section::Cluster.key("heartbeat"))
                .help("a few heartbeats may be lost: wait longer, or send them more often"),
        );
    }
}

fn check_peers(draft: &Draft, cluster: &ClusterDraft, findings: &mut Findings) {
    let count = cluster.peers.len();
    if count > PEERS_MAX {
        let message = format!("{count} peers, and there can be {PEERS_MAX}");
        let place = Section::Cluster.whole();
        findings.push(Problem::new(Kind::Invalid, place, SUBJECT, message));
    }
    if count == 0 {
        let message = "there is no [[cluster.peer]]: this node has nobody to talk to";
        let place = Section::Cluster.whole();
        findings.push(Problem::new(Kind::Warning, place, SUBJECT, message));
    }
    let mut taken = Taken::default();
    if let Some(name) = draft.node.given() {
        taken.names.insert(name, Section::Node.key("name"));
    }
    if let Some(listen) = cluster.listen.given() {
        taken
            .addresses
            .insert(*listen, Section::Cluster.key("listen"));
    }
    for (index, peer) in cluster.peers.iter().enumerate() {
        let section = Section::Peer(index);
        let subject = format!(
            "cluster, {}",
            super::named("peer", peer.name.given(), index)
        );
        findings.require(&peer.name, section, "name", &subject);
        findings.require(&peer.address, section, "address", &subject);
        names::check(&peer.name, section.key("name"), &subject, findings);
        check_peer_address(cluster, &peer.address, (section, &subject), findings);
        if let Some(name) = peer.name.given() {
            taken.check_name(name, section.key("name"), &subject, findings);
        }
        if let Some(address) = peer.address.given() {
            taken.check_address(*address, section.key("address"), &subject, findings);
        }
    }
}

fn check_peer_address(
    cluster: &ClusterDraft,
    address: &Field<SocketAddr>,
    (section, subject): (Section, &str),
    findings: &mut Findings,
) {
    let Some(address) = address.given() else {
        return;
    };
    let place = section.key("address");
    if let Some(fault) = unfit(*address) {
        let message = format!("address {address} {fault}");
        let help = "write what that node has as cluster.listen";
        findings.push(Problem::new(Kind::Invalid, place, subject, message).help(help));
        return;
    }
    let Some(listen) = cluster.listen.given() else {
        return;
    };
    if listen.is_ipv4() != address.is_ipv4() {
        let message = format!(
            "address {address} is {}, and this node listens at an address of {}",
            address::family(address.ip()),
            address::family(listen.ip())
        );
        let listen = Section::Cluster.key("listen");
        findings.push(Problem::new(Kind::Conflict, place, subject, message).against(listen));
    }
}

/// Names and addresses that belong to somebody, and where that is said.
#[derive(Default)]
struct Taken<'d> {
    names: HashMap<&'d String, Place>,
    addresses: HashMap<SocketAddr, Place>,
}

impl<'d> Taken<'d> {
    fn check_name(
        &mut self,
        name: &'d String,
        place: Place,
        subject: &str,
        findings: &mut Findings,
    ) {
        let first = *self.names.entry(name).or_insert(place);
        if first == place {
            return;
        }
        let problem = match first.section {
            Section::Node => {
                Problem::new(Kind::Conflict, place, subject, "is this node's own name")
                    .help("list the other nodes alone, each under its [node] name")
            }
            _ => Problem::new(Kind::Conflict, place, subject, "is named twice"),
        };
        findings.push(problem.against(first));
    }

    fn check_address(
        &mut self,
        address: SocketAddr,
        place: Place,
        subject: &str,
        findings: &mut Findings,
    ) {
        let first = *self.addresses.entry(address).or_insert(place);
        if first == place {
            return;
        }
        let owner = match first.section {
            Section::Cluster => "this node's own",
            _ => "another peer's, too",
        };
        let message = format!("address {address} is {owner}");
        findings.push(Problem::new(Kind::Conflict, place, subject, message).against(first));
    }
}
