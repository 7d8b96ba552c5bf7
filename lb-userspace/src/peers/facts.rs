//! What `lbd` knows and tells `lbd-vrrp`: pure.

use std::collections::BTreeMap;

use crate::engine::Fitness;
use crate::model::Model;
use crate::model::cluster::{self, VrrpGroup};
use crate::vrrp::protocol::{Configuration, Facts, Group, PeerFacts, Track, Tracked};

/// What `lbd-vrrp` is to do, by the model.
pub fn configuration(model: &Model, key: Option<&[u8; 32]>, pins: &str) -> Configuration {
    Configuration {
        node: model.node.clone(),
        groups: model.vrrp.values().map(group).collect(),
        key: key.map(|key| key.iter().map(|byte| format!("{byte:02x}")).collect()),
        pins: Some(pins.to_owned()),
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
        behind,
        live_backends: fitness.live_backends.clone(),
        peers,
    }
}

/// A group's interface without the datapath cannot serve; another one may, and is not judged here.
fn datapath_trouble(model: &Model, fitness: &Fitness) -> Option<String> {
    let attached_nowhere = || {
        let is_anywhere = model.interfaces.len() > fitness.unattached.len();
        let first = fitness.unattached.iter().next();
        first.filter(|_| !is_anywhere)
    };
    let unattached: &BTreeMap<String, String> = &fitness.unattached;
    let mut groups = model.vrrp.values();
    let on_group = groups.find_map(|group| unattached.get_key_value(&group.interface));
    let (interface, reason) = on_group.or_else(attached_nowhere)?;
    Some(format!(
        "the datapath is not attached to {interface}: {reason}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    fn model(interfaces: &[&str]) -> Model {
        let overrides = Overrides {
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            node: "lb1".to_owned(),
        };
        parse("lbd.toml", "", &overrides).unwrap().model
    }

    fn without(interface: &str) -> Fitness {
        Fitness {
            unattached: BTreeMap::from([(interface.to_owned(), "it is gone".to_owned())]),
            ..Fitness::default()
        }
    }

    #[test]
    fn a_node_whose_datapath_is_attached_nowhere_cannot_serve() {
        let trouble = datapath_trouble(&model(&["eth0"]), &without("eth0"));
        assert_eq!(
            trouble.unwrap(),
            "the datapath is not attached to eth0: it is gone"
        );
        let trouble = datapath_trouble(&model(&["eth0", "eth1"]), &without("eth1"));
        assert_eq!(trouble, None, "eth0 serves");
        assert_eq!(
            datapath_trouble(&model(&["eth0"]), &Fitness::default()),
            None
        );
    }
}
