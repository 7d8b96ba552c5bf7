//! All words of a node, and how those of others get among them.

use std::collections::BTreeMap;

use super::entry::{Entry, Key, Word};
use super::stamp::{HybridClock, Stamp, is_ahead};

/// Objects that words are kept of: more than all services and backends that ids allow, twice. Those of
/// others beyond that are refused, so that no peer can fill this node's memory. Unit: entries.
pub const ENTRIES_MAX: usize = 131_072;

/// How long a word that takes something back is kept at least. Unit: milliseconds.
const FROM_FILE_KEPT_MS: u64 = 3_600 * 1_000;

/// Refused entries that are told in words; the others are counted. Unit: entries.
const REFUSALS_TOLD_MAX: usize = 20;

/// What was changed at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// This node's name.
    node: String,
    clock: HybridClock,
    words: BTreeMap<Key, Held>,
    /// The number of the last word that came in.
    last_number: u64,
}

/// A word, and when it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) stamp: Stamp,
    pub(super) word: Word,
    number: u64,
}

/// What has become of a peer's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Objects of which something else is true since.
    pub changed: Vec<Key>,
    /// What was refused, and why: the first ones.
    pub refused: Vec<String>,
    /// How many were refused.
    pub refused_count: usize,
    /// Of these, those whose stamps are too far ahead of this node's clock, and of which something else is true here.
    pub ahead_count: usize,
}

impl Overlay {
    /// Nothing was changed yet. `node` is this node's name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            ..Self::default()
        }
    }

    /// The words that an earlier daemon has saved ([`Self::entries`]).
    pub fn restored(node: impl Into<String>, entries: Vec<Entry>) -> Self {
        let mut overlay = Self::new(node);
        for entry in entries {
            if entry.fault().is_none() && overlay.words.len() < ENTRIES_MAX {
                overlay.clock.hear(&entry.stamp);
                overlay.put(entry);
            }
        }
        overlay
    }

    /// All words, for the state file or for a peer that has others.
    pub fn entries(&self) -> Vec<Entry> {
        let words = self.words.iter();
        words.map(|(key, held)| entry(key, held)).collect()
    }

    /// The words that have come in after that number, for a peer that has had the others, and the number to ask
    /// with the next time. 0 = all.
    pub fn since(&self, number: u64) -> (Vec<Entry>, u64) {
        let new = self.words.iter().filter(|(_, held)| held.number > number);
        let mut new: Vec<_> = new.collect();
        new.sort_by_key(|(_, held)| held.number);
        let entries = new.into_iter().map(|(key, held)| entry(key, held));
        (entries.collect(), self.last_number)
    }

    /// The number of the last word that came in: what is true has not changed while it has not.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The same on all nodes that agree. Words that take something back do not count: where all that is
    /// true is the same, they have done their work.
    pub fn digest(&self) -> u64 {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let true_ones = self
            .words
            .iter()
            .filter(|(_, held)| held.word != Word::FromFile);
        for (key, held) in true_ones {
            // Keys, stamps and words have a form always.
            let bytes = postcard::to_stdvec(&(key, &held.stamp, &held.word)).unwrap_or_default();
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(&bytes);
        }
        let digest = context.finish();
        let first = digest.as_ref().first_chunk::<8>();
        first.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Words about so many objects are kept.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether nothing was ever changed.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Takes a peer's words over: of two about an object the one with the later stamp. `now_unix_ms` is this
    /// node's wall clock.
    pub fn merge(&mut self, entries: Vec<Entry>, now_unix_ms: u64) -> Merged {
        let mut merged = Merged::default();
        for entry in entries {
            if let Some(fault) = self.fault(&entry, now_unix_ms) {
                merged.refused_count += 1;
                let is_ahead = is_ahead(entry.stamp.wall_ms, now_unix_ms);
                merged.ahead_count += usize::from(is_ahead && self.lacks(&entry));
                if merged.refused.len() < REFUSALS_TOLD_MAX {
                    merged.refused.push(fault);
                }
                continue;
            }
            self.clock.hear(&entry.stamp);
            let key = entry.key.clone();
            let before = self.words.get(&key).map(|held| held.word.clone());
            let is_same = before.as_ref() == Some(&entry.word);
            if self.put(entry) && !is_same {
                merged.changed.push(key);
            }
        }
        merged
    }

    /// Whether something else is true of the object than this word says.
    fn lacks(&self, entry: &Entry) -> bool {
        self.word(&entry.key).unwrap_or(&Word::FromFile) != &entry.word
    }

    fn fault(&self, entry: &Entry, now_unix_ms: u64) -> Option<String> {
        if let Some(fault) = entry.fault() {
            return Some(format!("a change that makes no sense: {fault}"));
        }
        let Stamp { wall_ms, node, .. } = &entry.stamp;
        if is_ahead(*wall_ms, now_unix_ms) {
            let ahead_h = wall_ms.saturating_sub(now_unix_ms) / 3_600_000;
            return Some(format!(
                "{}: the clock of {node} is {ahead_h} hours ahead of this node's; set it right",
                entry.key
            ));
        }
        let is_full = self.words.len() >= ENTRIES_MAX && !self.words.contains_key(&entry.key);
        is_full.then(|| {
            format!(
                "{}: changes of {ENTRIES_MAX} objects are kept, and no more",
                entry.key
            )
        })
    }

    /// Takes a word if it is later than what is there. Of two with the same stamp, which no node of ours makes,
    /// the greater one, so that all nodes choose the same.
    fn put(&mut self, entry: Entry) -> bool {
        let Entry { key, stamp, word } = entry;
        let is_later = |held: &Held| (&stamp, &word) > (&held.stamp, &held.word);
        if !self.words.get(&key).is_none_or(is_later) {
            return false;
        }
        self.last_number += 1;
        let number = self.last_number;
        self.words.insert(
            key,
            Held {
                stamp,
                word,
                number,
            },
        );
        true
    }

    /// This node says something.
    pub(super) fn say(&mut self, key: Key, word: Word, now_unix_ms: u64) {
        self.set_stamps_right(now_unix_ms);
        let stamp = self.clock.next(&self.node, now_unix_ms);
        self.put(Entry { key, stamp, word });
    }

    /// If the wall clock was wrong by more than a day and is right now, nobody has taken what was said then: it is said
    /// again, in the same order. Says whether that was so.
    pub fn set_stamps_right(&mut self, now_unix_ms: u64) -> bool {
        let was_wrong = self.clock.is_ahead(now_unix_ms);
        if was_wrong {
            self.stamp_anew(now_unix_ms);
        }
        was_wrong
    }

    fn stamp_anew(&mut self, now_unix_ms: u64) {
        let words = std::mem::take(&mut self.words);
        let (ahead, fine): (Vec<_>, Vec<_>) = words
            .into_iter()
            .partition(|(_, held)| is_ahead(held.stamp.wall_ms, now_unix_ms));
        self.words = fine.into_iter().collect();
        self.clock.reset();
        for held in self.words.values() {
            self.clock.hear(&held.stamp);
        }
        let mut ahead = ahead;
        ahead.sort_by(|(_, one), (_, other)| one.stamp.cmp(&other.stamp));
        for (key, held) in ahead {
            let stamp = self.clock.next(&self.node, now_unix_ms);
            let word = held.word;
            self.put(Entry { key, stamp, word });
        }
    }

    /// What is said about an object.
    pub(super) fn word(&self, key: &Key) -> Option<&Word> {
        self.words.get(key).map(|held| &held.word)
    }

    /// The objects of which something is said that the file may not say.
    pub(super) fn said(&self) -> impl Iterator<Item = (&Key, &Word)> {
        let said = self.words.iter().map(|(key, held)| (key, &held.word));
        said.filter(|(_, word)| **word != Word::FromFile)
    }

    /// All that is said, what was taken back included.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Word)> {
        self.words.iter().map(|(key, held)| (key, &held.word))
    }

    /// What is said about the backends of a service.
    pub(super) fn backends(&self, service: &str) -> impl Iterator<Item = (&str, &Word)> {
        let first = Key::Backend(service.to_owned(), String::new());
        let words = self
            .words
            .range(first..)
            .map_while(move |(key, held)| match key {
                Key::Backend(of, name) if of == service => Some((name.as_str(), &held.word)),
                _ => None,
            });
        words.filter(|(_, word)| **word != Word::FromFile)
    }

    /// To be called now and then while every configured peer is there and has this node's [`Self::digest`]: words
    /// that take something back are forgotten an hour after they were said. Nobody is left who could say
    /// again what they have taken back.
    pub fn forget(&mut self, now_unix_ms: u64) {
        self.words.retain(|_, held| {
            let age_ms = now_unix_ms.saturating_sub(held.stamp.wall_ms);
            held.word != Word::FromFile || age_ms < FROM_FILE_KEPT_MS
        });
    }
}

fn entry(key: &Key, held: &Held) -> Entry {
    Entry {
        key: key.clone(),
        stamp: held.stamp.clone(),
        word: held.word.clone(),
    }
}
