//! Changes made at run time, shared with the peers: what goes over the links, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::core::Engine;
use crate::model::shared::{Entry, Outline};
use crate::peers::kinds;
use crate::sync::link::{LinksHandle, SendError};

/// Of entries or of an outline in one frame. Unit: bytes.
const PART_BYTES_MAX: usize = 40_000;
/// Parts of an outline: no configuration is longer. Unit: parts.
const PARTS_MAX: u16 = 512;

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    /// Words about objects.
    Entries(Vec<Entry>),
    /// A part of the sender's configuration, so that differences can be shown.
    Outline {
        /// Its number, from 0.
        part: u16,
        /// How many there are.
        part_count: u16,
        /// An [`Outline`]'s bytes.
        bytes: Vec<u8>,
    },
}

/// Before changes of peers that cannot be in force are tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(60);

/// What is known of the peers' configurations.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerConfigs {
    /// By peer, up to which number it has been told.
    told: BTreeMap<String, u64>,
    /// By peer: parts that have come, and the whole.
    partial: BTreeMap<String, Vec<u8>>,
    outlines: BTreeMap<String, Outline>,
    /// Changes of peers that cannot be in force here, and why.
    pub(super) refused: Vec<String>,
    /// Changes of peers are to be put in force once more: it has failed.
    owes_adoption: bool,
    /// When that was tried last.
    retried: Option<Instant>,
    /// Peers that have changes which were refused for their stamps: their clocks or this node's are wrong by more than
    /// a day.
    ahead: BTreeSet<String>,
    /// That of this node, as it was told last.
    said: Option<Outline>,
    /// How the peers' configurations differ from this node's.
    pub(super) drift: BTreeMap<String, Vec<String>>,
}

impl PeerConfigs {
    /// Why changes of a peer are not known here although it has told them, if so.
    pub(super) fn behind(&self) -> Option<String> {
        let peer = self.ahead.first()?;
        Some(format!(
            "changes of {peer} are refused: its clock and this node's are more than a day apart"
        ))
    }

    /// All that this node's rules allow is in force, or about to be.
    pub(super) fn owe_nothing(&mut self, refused: Vec<String>) {
        self.refused = refused;
        self.owes_adoption = false;
    }

    /// Changes of peers could not be put in force, for this reason.
    pub(super) fn owe_adoption(&mut self, reason: String) {
        self.refused.push(reason);
        self.owes_adoption = true;
    }

    /// A peer and this node have the same changes.
    pub(super) fn forget_refusals(&mut self, peer: &str) {
        self.ahead.remove(peer);
    }

    fn compare(&mut self) {
        let Some(own) = &self.said else {
            return;
        };
        let outlines = self.outlines.iter();
        let drift = outlines.map(|(peer, theirs)| (peer.clone(), own.drift(theirs)));
        self.drift = drift.filter(|(_, lines)| !lines.is_empty()).collect();
    }

    fn take_outline(&mut self, peer: &str, part: u16, part_count: u16, bytes: Vec<u8>) {
        if part_count > PARTS_MAX || bytes.len() > PART_BYTES_MAX {
            return;
        }
        if part == 0 {
            self.partial.insert(peer.to_owned(), Vec::new());
        }
        let Some(whole) = self.partial.get_mut(peer) else {
            return;
        };
        if whole.len() != usize::from(part) * PART_BYTES_MAX {
            self.partial.remove(peer);
            return;
        }
        whole.extend(bytes);
        if part + 1 < part_count {
            return;
        }
        let whole = self.partial.remove(peer).unwrap_or_default();
        match postcard::take_from_bytes(&whole) {
            Ok((outline, _later)) => {
                self.outlines.insert(peer.to_owned(), outline);
                self.compare();
            }
            Err(_) => debug!(
                peer,
                "its configuration cannot be read: of a later version?"
            ),
        }
    }
}

impl Engine {
    /// A link has come up: the peer is told everything.
    pub(super) fn tell_all_changes(&mut self, peer: &str) {
        self.configs.told.remove(peer);
        self.tell_changes_to(peer);
        let outline = Outline::of(&self.model);
        self.send_outline(&[peer.to_owned()], &outline);
        self.configs.said = Some(outline);
    }

    /// Tells the peers what was changed since.
    pub(super) fn tell_changes(&mut self) {
        let Some(links) = self.links() else {
            return;
        };
        let up: Vec<String> = names_up(&links);
        for peer in &up {
            self.tell_changes_to(peer);
        }
        let outline = Outline::of(&self.model);
        if self.configs.said.as_ref() != Some(&outline) {
            self.send_outline(&up, &outline);
            self.configs.said = Some(outline);
            self.configs.compare();
        }
    }

    fn tell_changes_to(&mut self, peer: &str) {
        let told = self.configs.told.get(peer).copied().unwrap_or(0);
        let (entries, number) = self.saved.shared_since(told);
        let Some(links) = self.links() else {
            return;
        };
        for part in parts(entries) {
            if !is_sent(&links, peer, &Message::Entries(part)) {
                return;
            }
        }
        self.configs.told.insert(peer.to_owned(), number);
    }

    fn send_outline(&self, peers: &[String], outline: &Outline) {
        let Some(links) = self.links() else {
            return;
        };
        let bytes = postcard::to_stdvec(outline).unwrap_or_default();
        let parts = bytes.chunks(PART_BYTES_MAX);
        let part_count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        if part_count > PARTS_MAX {
            return;
        }
        for peer in peers {
            for (part, bytes) in (0..).zip(bytes.chunks(PART_BYTES_MAX)) {
                let message = Message::Outline {
                    part,
                    part_count,
                    bytes: bytes.to_vec(),
                };
                if !is_sent(&links, peer, &message) {
                    break;
                }
            }
        }
    }

    /// Takes what a peer has told.
    pub(super) async fn hear_changes(&mut self, peer: &str, bytes: &[u8]) {
        match postcard::take_from_bytes(bytes) {
            Ok((Message::Entries(entries), _later)) => self.merge_changes(peer, entries).await,
            Ok((
                Message::Outline {
                    part,
                    part_count,
                    bytes,
                },
                _later,
            )) => self.configs.take_outline(peer, part, part_count, bytes),
            Err(_) => debug!(
                peer,
                "what it has changed cannot be read: of a later version?"
            ),
        }
    }

    async fn merge_changes(&mut self, peer: &str, entries: Vec<Entry>) {
        let merged = self.saved.merge_shared(entries);
        if merged.ahead_count > 0 {
            self.configs.ahead.insert(peer.to_owned());
        }
        for refused in &merged.refused {
            warn!(peer, "a change of the peer is refused: {refused}");
        }
        if merged.changed.is_empty() {
            return;
        }
        for key in &merged.changed {
            info!(peer, "changed by the peer: {key}");
        }
        self.adopt_shared().await;
        // What could not be put in force is known all the same, also after a restart.
        self.saved.save(&self.model);
        // Others may not have a link to that peer.
        self.tell_changes();
    }

    async fn adopt_shared(&mut self) {
        let laid = self.saved.laid(&self.model);
        self.configs.owe_nothing(laid.refused);
        if let Err(error) = self.adopt(laid.model).await {
            warn!("changes of a peer cannot be in force, and are tried again: {error}");
            self.configs.owe_adoption(error.to_string());
            self.adopt_states().await;
        }
    }

    /// Of what cannot be in force as a whole, the admin states are: they need no room in any map.
    async fn adopt_states(&mut self) {
        let model = self.saved.with_states(&self.model);
        if let Err(error) = self.adopt(model).await {
            warn!("not even its admin states can: {error}");
        }
    }

    /// To be called now and then: what could not be in force may find room by now.
    pub(super) async fn retry_adoption(&mut self) {
        let is_due = self
            .configs
            .retried
            .is_none_or(|last| last.elapsed() >= RETRY_PERIOD);
        if self.configs.owes_adoption && is_due {
            self.configs.retried = Some(Instant::now());
            self.adopt_shared().await;
        }
    }

    /// To be called now and then while all peers have the same changes.
    pub(super) async fn agree(&mut self) {
        self.saved.forget_shared();
    }

    /// A peer has not the same changes, and nothing is on the way: it has refused some, since a clock is or was wrong
    /// perhaps. It is told all of them again.
    pub(super) fn tell_changes_again(&mut self, peer: &str) {
        // It may have been this node's.
        if self.saved.set_stamps_right() {
            self.saved.save(&self.model);
        }
        self.configs.told.remove(peer);
        self.tell_changes_to(peer);
    }
}

fn names_up(links: &LinksHandle) -> Vec<String> {
    let peers = links.status().peers.into_iter();
    peers
        .filter(|peer| peer.is_up)
        .map(|peer| peer.peer)
        .collect()
}

/// Whether it is on its way; of a link that is down, everything is said again when it is up.
fn is_sent(links: &LinksHandle, peer: &str, message: &Message) -> bool {
    let bytes = postcard::to_stdvec(message).unwrap_or_default();
    match links.send(peer, kinds::CHANGES, bytes) {
        Ok(()) => true,
        Err(SendError::Down(_) | SendError::Full(_)) => false,
        Err(error) => {
            warn!(peer, "changes made at run time were not told: {error}");
            false
        }
    }
}

/// As many entries together as a frame holds.
fn parts(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut parts: Vec<Vec<Entry>> = Vec::new();
    let mut room = 0;
    for entry in entries {
        let needed = postcard::to_stdvec(&entry).map_or(0, |bytes| bytes.len());
        if parts.is_empty() || needed > room {
            parts.push(Vec::new());
            room = PART_BYTES_MAX;
        }
        room = room.saturating_sub(needed);
        if let Some(last) = parts.last_mut() {
            last.push(entry);
        }
    }
    parts
}
