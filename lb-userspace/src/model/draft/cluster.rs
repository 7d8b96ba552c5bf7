//! `[cluster]` and `[[vrrp]]` as written, and drafts ↔ models of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Draft, Field};
use crate::model::cluster::{
    Cluster, HEARTBEAT_DEFAULT_MS, PATIENCE_DEFAULT_S, Peer, Track, Tracked,
    VRRP_INTERVAL_DEFAULT_CS, VRRP_PRIORITY_DEFAULT, VrrpGroup,
};

/// The unit of advertisement intervals on the wire (RFC 9568 section 5.2.7). Unit: milliseconds.
const CENTISECOND_MS: i64 = 10;

/// `[cluster]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDraft {
    /// Required.
    pub listen: Field<SocketAddr>,
    /// Required. Whoever read it has seen that the file will do.
    pub secret_file: Field<String>,
    /// Unit: milliseconds. Default [`HEARTBEAT_DEFAULT_MS`].
    pub heartbeat_ms: Field<i64>,
    /// Unit: seconds. Default [`PATIENCE_DEFAULT_S`].
    pub patience_s: Field<i64>,
    /// `[[cluster.peer]]`.
    pub peers: Vec<PeerDraft>,
}

/// `[[cluster.peer]]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerDraft {
    /// Required.
    pub name: Field<String>,
    /// Required.
    pub address: Field<SocketAddr>,
}

/// `[[vrrp]]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VrrpDraft {
    /// Required.
    pub name: Field<String>,
    /// Required.
    pub interface: Field<String>,
    /// Required.
    pub vrid: Field<i64>,
    /// Required.
    pub vips: Field<Vec<IpAddr>>,
    /// Default [`VRRP_PRIORITY_DEFAULT`].
    pub priority: Field<i64>,
    /// Unit: milliseconds. Default: [`VRRP_INTERVAL_DEFAULT_CS`].
    pub interval_ms: Field<i64>,
    /// Default true.
    pub preempt: Field<bool>,
    /// Unit: milliseconds. Default 0.
    pub preempt_delay_ms: Field<i64>,
    /// Default: none, which is multicast.
    pub peers: Field<Vec<IpAddr>>,
    /// `source`. Default: the interface's.
    pub sources: Field<Vec<IpAddr>>,
    /// Default true.
    pub accept: Field<bool>,
    /// Default false.
    pub virtual_mac: Field<bool>,
    /// Default: whether there is a `[cluster]`.
    pub authenticate: Field<bool>,
    /// `[[vrrp.track]]`.
    pub tracks: Vec<TrackDraft>,
}

/// `[[vrrp.track]]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackDraft {
    /// Either this or `service`.
    pub interface: Field<String>,
    /// Either this or `interface`.
    pub service: Field<String>,
    /// With a service. Default 1.
    pub live_backends: Field<i64>,
    /// Default: none, which is a fault.
    pub weight: Field<i64>,
}

/// Values with their defaults; `None` = missing or unreadable, which is reported elsewhere.
impl ClusterDraft {
    /// Between two heartbeats. Unit: milliseconds.
    pub fn heartbeat_ms(&self) -> Option<i64> {
        self.heartbeat_ms.or(i64::from(HEARTBEAT_DEFAULT_MS))
    }

    /// How long planned changes wait for a silent peer. Unit: seconds.
    pub fn patience_s(&self) -> Option<i64> {
        self.patience_s.or(i64::from(PATIENCE_DEFAULT_S))
    }

    fn build(&self) -> Option<Cluster> {
        let peers = self.peers.iter().map(|peer| {
            let peer = peer.build()?;
            Some((peer.name.clone(), peer))
        });
        Some(Cluster {
            listen: *self.listen.given()?,
            secret_file: self.secret_file.given()?.into(),
            heartbeat_ms: u32::try_from(self.heartbeat_ms()?).ok()?,
            patience_s: u32::try_from(self.patience_s()?).ok()?,
            peers: peers.collect::<Option<_>>()?,
        })
    }
}

impl PeerDraft {
    fn build(&self) -> Option<Peer> {
        Some(Peer {
            name: self.name.given()?.clone(),
            address: *self.address.given()?,
        })
    }
}

/// As [`ClusterDraft`]'s.
impl VrrpDraft {
    /// The priority.
    pub fn priority(&self) -> Option<i64> {
        self.priority.or(i64::from(VRRP_PRIORITY_DEFAULT))
    }

    /// The advertisement interval. Unit: milliseconds.
    pub fn interval_ms(&self) -> Option<i64> {
        self.interval_ms
            .or(i64::from(VRRP_INTERVAL_DEFAULT_CS) * CENTISECOND_MS)
    }

    /// Whether it takes over from an Active one of lower priority.
    pub fn preempt(&self) -> Option<bool> {
        self.preempt.or(true)
    }

    /// How long it waits before that. Unit: milliseconds.
    pub fn preempt_delay_ms(&self) -> Option<i64> {
        self.preempt_delay_ms.or(0)
    }

    /// Whether the node's own stack answers at the VIPs.
    pub fn accept(&self) -> Option<bool> {
        self.accept.or(true)
    }

    /// The VIPs that could be read.
    pub fn vips(&self) -> &[IpAddr] {
        self.vips.given().map_or(&[], Vec::as_slice)
    }

    /// The unicast peers that could be read.
    pub fn peers(&self) -> &[IpAddr] {
        self.peers.given().map_or(&[], Vec::as_slice)
    }

    /// The sources that could be read.
    pub fn sources(&self) -> &[IpAddr] {
        self.sources.given().map_or(&[], Vec::as_slice)
    }

    fn build(&self, has_cluster: bool) -> Option<VrrpGroup> {
        let interval_cs = self.interval_ms()? / CENTISECOND_MS;
        let tracks = self.tracks.iter().map(TrackDraft::build);
        let addresses = |field: &Field<Vec<IpAddr>>| match field {
            Field::Absent => Some(Vec::new()),
            Field::Given(addresses) => Some(addresses.clone()),
            Field::Unreadable => None,
        };
        Some(VrrpGroup {
            name: self.name.given()?.clone(),
            interface: self.interface.given()?.clone(),
            vrid: u8::try_from(*self.vrid.given()?).ok()?,
            vips: self.vips.given()?.iter().copied().collect(),
            priority: u8::try_from(self.priority()?).ok()?,
            interval_cs: u16::try_from(interval_cs).ok()?,
            preempt: self.preempt()?,
            preempt_delay_ms: u32::try_from(self.preempt_delay_ms()?).ok()?,
            peers: addresses(&self.peers)?.into_iter().collect(),
            sources: addresses(&self.sources)?.into_iter().collect(),
            accept: self.accept()?,
            virtual_mac: self.virtual_mac.or(false)?,
            authenticate: self.authenticate.or(has_cluster)?,
            tracks: tracks.collect::<Option<_>>()?,
        })
    }
}

impl TrackDraft {
    /// So many backends of the service at least.
    pub fn live_backends(&self) -> Option<i64> {
        self.live_backends.or(1)
    }

    fn build(&self) -> Option<Track> {
        let what = match (self.interface.given(), self.service.given()) {
            (Some(interface), None) => Tracked::Interface(interface.clone()),
            (None, Some(service)) => Tracked::Service {
                name: service.clone(),
                live_backends_min: u32::try_from(self.live_backends()?).ok()?,
            },
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let weight = match self.weight {
            Field::Absent => None,
            Field::Given(weight) => Some(u8::try_from(weight).ok()?),
            Field::Unreadable => return None,
        };
        Some(Track { what, weight })
    }
}

impl Draft {
    /// The outer `None` = it cannot be used.
    pub(super) fn build_cluster(&self) -> Option<Option<Cluster>> {
        match &self.cluster {
            None => Some(None),
            Some(cluster) => cluster.build().map(Some),
        }
    }

    pub(super) fn build_vrrp(&self) -> Option<BTreeMap<String, VrrpGroup>> {
        let has_cluster = self.cluster.is_some();
        let groups = self.vrrp.iter().map(|group| {
            let group = group.build(has_cluster)?;
            Some((group.name.clone(), group))
        });
        groups.collect()
    }
}

impl From<&Cluster> for ClusterDraft {
    fn from(cluster: &Cluster) -> Self {
        let peers = cluster.peers.values().map(|peer| PeerDraft {
            name: Field::Given(peer.name.clone()),
            address: Field::Given(peer.address),
        });
        Self {
            listen: Field::Given(cluster.listen),
            secret_file: Field::Given(cluster.secret_file.display().to_string()),
            heartbeat_ms: Field::Given(i64::from(cluster.heartbeat_ms)),
            patience_s: Field::Given(i64::from(cluster.patience_s)),
            peers: peers.collect(),
        }
    }
}

impl From<&VrrpGroup> for VrrpDraft {
    fn from(group: &VrrpGroup) -> Self {
        let addresses = |set: &std::collections::BTreeSet<IpAddr>| set.iter().copied().collect();
        Self {
            name: Field::Given(group.name.clone()),
            interface: Field::Given(group.interface.clone()),
            vrid: Field::Given(i64::from(group.vrid)),
            vips: Field::Given(addresses(&group.vips)),
            priority: Field::Given(i64::from(group.priority)),
            interval_ms: Field::Given(i64::from(group.interval_cs) * CENTISECOND_MS),
            preempt: Field::Given(group.preempt),
            preempt_delay_ms: Field::Given(i64::from(group.preempt_delay_ms)),
            peers: Field::Given(addresses(&group.peers)),
            sources: Field::Given(addresses(&group.sources)),
            accept: Field::Given(group.accept),
            virtual_mac: Field::Given(group.virtual_mac),
            authenticate: Field::Given(group.authenticate),
            tracks: group.tracks.iter().map(TrackDraft::from).collect(),
        }
    }
}

impl From<&Track> for TrackDraft {
    fn from(track: &Track) -> Self {
        let mut draft = Self {
            weight: track.weight.map(i64::from).into(),
            ..Self::default()
        };
        match &track.what {
            Tracked::Interface(name) => draft.interface = Field::Given(name.clone()),
            Tracked::Service {
                name,
                live_backends_min,
            } => {
                draft.service = Field::Given(name.clone());
                draft.live_backends = Field::Given(i64::from(*live_backends_min));
            }
        }
        draft
    }
}
