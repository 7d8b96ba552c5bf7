//! The payloads of the datagrams that replication sends.

use bytemuck::{Pod, Zeroable};

use crate::sync::datagram::PAYLOAD_MAX_BYTES;
use crate::sync::flow::SharedFlow;

/// Flows in one datagram at most.
pub const FLOWS_MAX: usize =
    (PAYLOAD_MAX_BYTES - size_of::<FlowsHeader>()) / size_of::<SharedFlow>();
/// Datagrams before the latest one of which an acknowledgement tells.
pub const ACK_SPAN: u64 = 256;
const ACK_WORDS: usize = (ACK_SPAN / u64::BITS as u64) as usize;

/// Stands before the flows. Little endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowsHeader {
    /// Counts the sender's flow datagrams in this session, from 1.
    pub sequence: u64,
    /// The version of the sender's dictionary that is needed to read it.
    pub dictionary_version: u32,
    /// The last round of which the receiver has acknowledged everything; 0 = none.
    pub complete_round: u32,
    /// The age of the sender's oldest change that the receiver has not acknowledged. Unit: milliseconds.
    pub lag_ms: u32,
    /// When it was made, by the sender's clock. Unit: milliseconds, without its upper bits.
    pub sent_ms: u32,
    /// Flows that follow.
    pub count: u16,
    /// 0.
    pub reserved: [u16; 3],
}

/// Which flow datagrams have arrived and were merged. Little endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowsAck {
    /// The latest one; 0 = none.
    pub latest: u64,
    /// Bit `n` of the 256, from the least significant one of the first word: `latest - 1 - n` is among them.
    pub earlier: [u64; ACK_WORDS],
    /// All flows are wanted, if this is higher than before: at first 1.
    pub wanted_round: u32,
    /// The version of the peer's dictionary that has arrived; 0 = none, so that flows would mean nothing yet.
    pub dictionary_version: u32,
    /// Since the latest one arrived. Unit: microseconds.
    pub held_us: u32,
    /// 0.
    pub reserved: u32,
}

impl FlowsAck {
    /// Whether it tells that a datagram has arrived.
    pub fn has(&self, sequence: u64) -> bool {
        match self.latest.checked_sub(sequence) {
            None => false,
            Some(0) => true,
            Some(age) if age > ACK_SPAN => false,
            Some(age) => {
                let bit = age - 1;
                self.earlier[(bit / 64) as usize] & 1 << (bit % 64) != 0
            }
        }
    }

    /// Notes that a datagram has arrived; false if it had before, or is too old to be told.
    pub fn note(&mut self, sequence: u64) -> bool {
        if sequence > self.latest {
            self.move_on(sequence - self.latest);
            self.latest = sequence;
            return true;
        }
        let age = self.latest - sequence;
        if sequence == 0 || age > ACK_SPAN || self.has(sequence) {
            return false;
        }
        let bit = age - 1;
        self.earlier[(bit / 64) as usize] |= 1 << (bit % 64);
        true
    }

    /// Whether any of the last datagrams has not arrived.
    pub fn has_gaps(&self) -> bool {
        let told = self.latest.saturating_sub(1).min(64) as u32;
        self.earlier[0].trailing_ones() < told
    }

    /// Makes room for this many later ones: the one that was the latest is noted.
    fn move_on(&mut self, count: u64) {
        let old = self.earlier;
        let at = |word: Option<usize>| word.and_then(|word| old.get(word)).copied().unwrap_or(0);
        let (words, bits) = ((count / 64) as usize, count % 64);
        for (word, new) in self.earlier.iter_mut().enumerate() {
            let low = at(word.checked_sub(words)) << bits;
            let high = match bits {
                0 => 0,
                _ => {
                    at(word.checked_sub(words).and_then(|word| word.checked_sub(1))) >> (64 - bits)
                }
            };
            *new = low | high;
        }
        if self.latest > 0 && count <= ACK_SPAN {
            let bit = count - 1;
            self.earlier[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
}

/// A payload that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its length is wrong.
    #[error("a payload of {len_bytes} bytes is no {what}")]
    Length {
        /// What it should have been.
        what: &'static str,
        /// Its length.
        len_bytes: usize,
    },
    /// Its content contradicts itself, or what was sent before.
    #[error("{0}")]
    Content(&'static str),
}

/// Appends a datagram's payload.
pub fn put_flows(header: &FlowsHeader, flows: &[SharedFlow], payload: &mut Vec<u8>) {
    payload.extend_from_slice(bytemuck::bytes_of(header));
    payload.extend_from_slice(bytemuck::cast_slice(flows));
}

/// The flows of a datagram.
///
/// # Errors
/// [`Malformed`].
pub fn parse_flows(
    payload: &[u8],
) -> Result<(FlowsHeader, impl Iterator<Item = SharedFlow>), Malformed> {
    let malformed = Malformed::Length {
        what: "datagram of flows",
        len_bytes: payload.len(),
    };
    let (header, flows) = payload
        .split_at_checked(size_of::<FlowsHeader>())
        .ok_or(malformed)?;
    let header: FlowsHeader = bytemuck::pod_read_unaligned(header);
    let (flows, rest) = flows.as_chunks::<{ size_of::<SharedFlow>() }>();
    if usize::from(header.count) != flows.len() || !rest.is_empty() || flows.len() > FLOWS_MAX {
        return Err(malformed);
    }
    if header.sequence == 0 || header.sequence == u64::MAX {
        return Err(Malformed::Content("a datagram of flows has no number"));
    }
    Ok((
        header,
        flows.iter().map(|flow| bytemuck::pod_read_unaligned(flow)),
    ))
}

/// An acknowledgement.
///
/// # Errors
/// [`Malformed`].
pub fn parse_ack(payload: &[u8]) -> Result<FlowsAck, Malformed> {
    bytemuck::try_pod_read_unaligned(payload).map_err(|_| Malformed::Length {
        what: "acknowledgement of flows",
        len_bytes: payload.len(),
    })
}

const _: () = assert!(size_of::<FlowsHeader>() == 32);
const _: () = assert!(size_of::<FlowsAck>() == 56);
const _: () = assert!(
    cfg!(target_endian = "little"),
    "records are sent as they are in memory"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a set that remembers everything.
        #[test]
        fn an_acknowledgement_tells_what_has_arrived(
            steps in proptest::collection::vec((any::<bool>(), 0..400_u64), 1..200),
        ) {
            let (mut ack, mut seen) = (FlowsAck::default(), BTreeSet::new());
            for (goes_back, step) in steps {
                let sequence = if goes_back {
                    ack.latest.saturating_sub(step).max(1)
                } else {
                    ack.latest + 1 + step % 80
                };
                let is_told = ack.latest.saturating_sub(sequence) <= ACK_SPAN;
                prop_assert_eq!(ack.note(sequence), is_told && !seen.contains(&sequence));
                if is_told {
                    seen.insert(sequence);
                }
                for sequence in ack.latest.saturating_sub(300).max(1)..ack.latest + 2 {
                    let is_told = ack.latest.saturating_sub(sequence) <= ACK_SPAN;
                    prop_assert_eq!(ack.has(sequence), is_told && seen.contains(&sequence), "{}", sequence);
                }
                let is_missing = |age| age < ack.latest && !seen.contains(&(ack.latest - age));
                prop_assert_eq!(ack.has_gaps(), (1..=64).any(is_missing));
            }
        }

        #[test]
        fn what_is_no_message_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..1300)) {
            if let Ok((header, flows)) = parse_flows(&payload) {
                prop_assert_eq!(flows.count(), usize::from(header.count));
            }
            prop_assert_eq!(parse_ack(&payload).is_ok(), payload.len() == size_of::<FlowsAck>());
        }
    }

    #[test]
    fn flows_are_read_as_they_were_written_and_a_full_datagram_fits() {
        let header = FlowsHeader {
            sequence: 7,
            count: FLOWS_MAX as u16,
            ..FlowsHeader::default()
        };
        let flows = vec![
            SharedFlow {
                sequence: 9,
                ..SharedFlow::zeroed()
            };
            FLOWS_MAX
        ];
        let mut payload = Vec::new();
        put_flows(&header, &flows, &mut payload);
        assert!(payload.len() <= PAYLOAD_MAX_BYTES);
        let (read, read_flows) = parse_flows(&payload).expect("well formed");
        assert_eq!((read, read_flows.collect::<Vec<_>>()), (header, flows));
        for len in 0..payload.len() {
            assert!(parse_flows(&payload[..len]).is_err());
        }
    }
}
