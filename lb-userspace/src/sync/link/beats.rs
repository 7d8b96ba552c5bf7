//! Heartbeats of one session: in which order they were sent, and what their way takes.

use bytemuck::{Pod, Zeroable};

/// The newest measurement's share of the smoothed round trip: one of so many parts.
const RTT_PART: u64 = 8;

/// The content of a heartbeat before its payload. Little endian.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Beat {
    /// When it was sent, on the sender's clock. Unit: microseconds.
    pub(super) sent_us: u64,
    /// `sent_us` of the last heartbeat that the sender has from the receiver; 0 = none.
    pub(super) echo_us: u64,
    /// For how long the sender had that one. Unit: microseconds.
    pub(super) held_us: u32,
    /// Since the payload was set. Unit: milliseconds.
    pub(super) payload_age_ms: u32,
}

/// What is known of the heartbeats of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beats {
    /// `sent_us` of the peer's last heartbeat, and when it came; zeros = none.
    pub(super) last: (u64, u64),
    /// Smoothed; 0 = not measured. Unit: microseconds.
    pub(super) rtt_us: u64,
}

impl Beats {
    /// Takes a heartbeat of the peer that came at `now_us`. Says whether it is the latest that was sent: what one says
    /// that was overtaken on its way is no longer so.
    pub(super) fn take(&mut self, beat: &Beat, now_us: u64) -> bool {
        if let Some(way_us) = way_us(beat, now_us) {
            self.rtt_us = match self.rtt_us {
                0 => way_us,
                before_us => (before_us * (RTT_PART - 1) + way_us) / RTT_PART,
            };
        }
        let is_latest = beat.sent_us >= self.last.0;
        if is_latest {
            self.last = (beat.sent_us, now_us);
        }
        is_latest
    }
}

/// How old the last heartbeat of ours is that the peer has; `None` = it has none. Unit: milliseconds.
pub(super) fn echo_age_ms(beat: &Beat, now_us: u64) -> Option<u64> {
    let age_us = now_us.checked_sub(beat.echo_us)?;
    (beat.echo_us > 0).then_some(age_us / 1_000)
}

/// From a heartbeat of ours to its echo, without what the peer has waited.
fn way_us(beat: &Beat, now_us: u64) -> Option<u64> {
    let since_us = now_us.checked_sub(beat.echo_us)?;
    let way_us = since_us.checked_sub(beat.held_us.into())?;
    (beat.echo_us > 0).then_some(way_us.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(sent_us: u64, echo_us: u64, held_us: u32) -> Beat {
        Beat {
            sent_us,
            echo_us,
            held_us,
            payload_age_ms: 0,
        }
    }

    #[test]
    fn what_was_overtaken_is_not_the_latest() {
        let mut beats = Beats::default();
        assert!(beats.take(&beat(1_000, 0, 0), 50));
        assert!(beats.take(&beat(3_000, 0, 0), 60));
        assert!(!beats.take(&beat(2_000, 0, 0), 70));
        assert_eq!(beats.last, (3_000, 60));
        assert!(beats.take(&beat(3_000, 0, 0), 80), "of the same moment");
        assert_eq!(beats.rtt_us, 0);
    }

    #[test]
    fn the_round_trip_is_without_the_peers_pause_and_smoothed() {
        let mut beats = Beats::default();
        beats.take(&beat(1, 10_000, 4_000), 15_000);
        assert_eq!(beats.rtt_us, 1_000);
        beats.take(&beat(2, 20_000, 0), 29_000);
        assert_eq!(beats.rtt_us, 2_000);
        // Echoes from the future, or of heartbeats that never were.
        beats.take(&beat(3, 99_000, 0), 30_000);
        beats.take(&beat(4, 29_000, 2_000), 30_000);
        assert_eq!(beats.rtt_us, 2_000);
    }
}
