//! Whose flow hash key holds when two nodes have different ones.
//!
//! A datapath that is made anew begins with the key that all nodes derive from their secret. But one that was alone
//! before, with a key of its own, may have flows: it keeps its key, and the node that serves nobody takes it over.

use std::collections::BTreeMap;

use lb_common::limits::HASH_KEY_WORDS;

/// A flow hash key.
pub type HashKey = [u64; HASH_KEY_WORDS];

/// What a node says of its key, and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its key.
    pub(super) key: HashKey,
    /// Whether it has VIPs.
    pub(super) serves: bool,
}

/// The key that this node should have in place of its own. Never of two that both serve: their flows would all
/// change their slots.
pub(super) fn better(own: Claim, peers: &BTreeMap<String, Claim>) -> Option<HashKey> {
    if own.serves {
        return None;
    }
    let mut serving = peers.values().filter(|peer| peer.serves);
    let served = serving.next()?;
    (served.key != own.key).then_some(served.key)
}

/// As bytes, little endian.
pub(crate) fn to_bytes(key: &HashKey) -> Vec<u8> {
    key.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// From bytes; `None` = it is no key.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<HashKey> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().copied().map(u64::from_le_bytes).collect();
    let is_whole = rest.is_empty();
    HashKey::try_from(words).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(word: u64, serves: bool) -> Claim {
        Claim {
            key: [word; HASH_KEY_WORDS],
            serves,
        }
    }

    #[test]
    fn who_serves_nobody_takes_over_the_key_of_who_does() {
        let peers = |peer| BTreeMap::from([("lb2".to_owned(), peer)]);
        let taken = better(claim(1, false), &peers(claim(2, true)));
        assert_eq!(taken, Some([2; HASH_KEY_WORDS]));
        assert_eq!(better(claim(1, false), &peers(claim(1, true))), None);
        assert_eq!(better(claim(1, false), &peers(claim(2, false))), None);
        assert_eq!(better(claim(1, true), &peers(claim(2, true))), None);
        assert_eq!(better(claim(1, true), &peers(claim(2, false))), None);
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_nothing_else_is_one() {
        let key = [1, 2, u64::MAX, 4];
        let bytes = to_bytes(&key);
        assert_eq!(from_bytes(&bytes), Some(key));
        assert_eq!(from_bytes(&bytes[..31]), None);
        assert_eq!(from_bytes(&[bytes, vec![0]].concat()), None);
        assert_eq!(from_bytes(&[]), None);
    }
}
