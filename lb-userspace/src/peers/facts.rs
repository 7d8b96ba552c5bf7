//! What `lbd` knows and tells `lbd-vrrp`: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::engine::Fitness;
use crate::model::Model;
use crate::model::cluster::{self, VrrpGroup};
use crate::vrrp::protocol::{Configuration, Facts, Group, PeerFacts, Track, Tracked};

/// What `lbd-vrrp` is to do, by the model.
pub fn configuration(
    model: &Model,
    fitness: &Fitness,
    key: Option<&[u8; 32]>,
    pins: &str,
) -> Configuration {
    let is_of_group = |vip: &IpAddr| {
        let mut groups = model.vrrp.values();
        groups.any(|group| group.vips.contains(vip))
    };
    let given = fitness.given_vips.iter();
    Configuration {
        node: model.node.clone(),
        groups: model.vrrp.values().map(group).collect(),
        key: key.map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()),
        pins: Some(pins.to_owned()),
        given_vips: given
            .filter(|(vip, _)| is_of_group(vip))
            .map(|(vip, place)| (*vip, place.clone()))
            .collect(),
    }
}

fn group(group: &VrrpGroup) -> Group {
    Group {
        name: group.name.clone(),
        interface: group.interface.clone(),
        vrid: group.vrid,
        vips: group.vips.iter().copied().collect(),
        priority: group.priority,
        interval_cs: group.interval_cs,
        preempt: group.preempt,
        preempt_delay_ms: group.preempt_delay_ms,
        peers: group.peers.iter().copied().collect(),
        sources: group.sources.iter().copied().collect(),
        accept: group.accept,
        virtual_mac: group.virtual_mac,
        authenticate: group.authenticate,
        tracks: group.tracks.iter().map(track).collect(),
    }
}

fn track(track: &cluster::Track) -> Track {
    let what = match &track.what {
        cluster::Tracked::Interface(name) => Tracked::Interface(name.clone()),
        cluster::Tracked::Service {
            name,
            live_backends_min,
        } => Tracked::Service {
            name: name.clone(),
            live_backends_min: *live_backends_min,
        },
    };
    Track {
        what,
        weight: track.weight,
    }
}

/// What there is to be known now.
pub fn facts(
    model: &Model,
    fitness: &Fitness,
    behind: Option<String>,
    peers: Vec<PeerFacts>,
) -> Facts {
    Facts {
        datapath_trouble: datapath_trouble(model, fitness),
        unwell: fitness.unwell.clone(),
        behind,
        live_backends: tracked(model, &fitness.live_backends),
        peers,
    }
}

/// Of the services that a group tracks: a line to `lbd-vrrp` has room for some thousand.
fn tracked(model: &Model, live_backends: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let tracks = model.vrrp.values().flat_map(|group| &group.tracks);
    let names = tracks.filter_map(|track| match &track.what {
        cluster::Tracked::Service { name, .. } => Some(name),
        cluster::Tracked::Interface(_) => None,
    });
    names
        .filter_map(|name| Some((name.clone(), *live_backends.get(name)?)))
        .collect()
}

/// Why this node cannot serve, if so: no interface can.
fn datapath_trouble(model: &Model, fitness: &Fitness) -> Option<String> {
    let (interface, reason) = fitness.unwell.iter().next()?;
    let is_any_well = model.interfaces.len() > fitness.unwell.len();
    (!is_any_well).then(|| format!("interface {interface} cannot serve: {reason}"))
}

/// Whether a group's interface cannot serve.
pub fn is_unfit(model: &Model, fitness: &Fitness, group: &str) -> bool {
    let group = model.vrrp.get(group);
    group.is_some_and(|group| fitness.unwell.contains_key(&group.interface))
        || datapath_trouble(model, fitness).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    fn model(interfaces: &[&str]) -> Model {
        parsed(interfaces, "")
    }

    fn parsed(interfaces: &[&str], text: &str) -> Model {
        let overrides = Overrides {
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            node: "lb1".to_owned(),
        };
        parse("lbd.toml", text, &overrides).unwrap().model
    }

    fn without(interface: &str) -> Fitness {
        Fitness {
            unwell: BTreeMap::from([(interface.to_owned(), "it is down".to_owned())]),
            ..Fitness::default()
        }
    }

    #[test]
    fn a_node_none_of_whose_interfaces_is_well_cannot_serve() {
        let trouble = datapath_trouble(&model(&["eth0"]), &without("eth0"));
        assert_eq!(trouble.unwrap(), "interface eth0 cannot serve: it is down");
        let trouble = datapath_trouble(&model(&["eth0", "eth1"]), &without("eth1"));
        assert_eq!(trouble, None, "eth0 serves");
        assert_eq!(
            datapath_trouble(&model(&["eth0"]), &Fitness::default()),
            None
        );
    }

    #[test]
    fn lbd_vrrp_is_told_of_the_services_that_a_group_tracks_and_of_no_other() {
        let service = |name: &str, vip| {
            format!("[[service]]\nname = \"{name}\"\nvip = \"203.0.113.{vip}\"\nport = 80\n")
        };
        let group = |name: &str, vrid| {
            let vip = format!("vips = [\"203.0.113.{vrid}\"]");
            format!("[[vrrp]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\n{vip}\n")
        };
        let track = |what: &str| format!("[[vrrp.track]]\n{what}\n");
        let (web, api) = (track("service = \"web\""), track("service = \"api\""));
        // An interface may be called as a service is.
        let interface = track("interface = \"dns\"");
        let text = [
            service("web", 10),
            service("api", 11),
            service("dns", 12),
            service("mail", 13),
            group("a", 10) + &web + &interface,
            group("b", 11) + &web + &api,
        ];
        let model = parsed(&["eth0"], &text.concat());
        let live = ["web", "api", "dns", "mail"].map(|name| (name.to_owned(), 2));
        let fitness = Fitness {
            live_backends: live.into(),
            ..Fitness::default()
        };
        let told = facts(&model, &fitness, None, Vec::new()).live_backends;
        assert_eq!(told.into_keys().collect::<Vec<_>>(), ["api", "web"]);
    }
}
