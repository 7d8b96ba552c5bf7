//! When the rings are looked at again, and when the flow table is swept. The clock goes in.

use std::time::Duration;

use tokio::time::Instant;

/// Between two sweeps of the flow table at most: expired records must not stay for months, or their expiry would be
/// one of the future ([`crate::transition::sweep`]).
const SWEEP_PERIOD_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The first sweep comes so soon after the start: a daemon that is started anew every few days would never come to the
/// end of the period.
const FIRST_SWEEP: Duration = Duration::from_secs(60);
/// Nothing is done more often than this for the rings' sake.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// What was due and could not be done is tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// What a look at the rings has shown to be due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// In so long, the rings are to be looked at again; `None` = when something changes.
    pub(super) look_in: Option<Duration>,
    /// The flow table is to be swept before that.
    pub(super) sweep: bool,
}

/// What is due for the rings' sake, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agenda {
    look_at: Option<Instant>,
    is_sweep_wanted: bool,
    /// When the flow table is to be swept at the latest, whatever the rings want.
    sweep_by: Instant,
}

impl Agenda {
    /// Of a daemon that begins.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            look_at: None,
            is_sweep_wanted: false,
            sweep_by: now + FIRST_SWEEP,
        }
    }

    /// The rings have been looked at.
    pub(super) fn note_look(&mut self, wanted: Wanted, now: Instant) {
        self.is_sweep_wanted = wanted.sweep;
        let pause = if wanted.sweep {
            Some(PAUSE_MIN)
        } else {
            wanted.look_in.map(|wait| wait.max(PAUSE_MIN))
        };
        let due = pause.map(|pause| now + pause);
        self.look_at = [due, Some(self.sweep_by)].into_iter().flatten().min();
    }

    /// What is due begins: whether the flow table is to be swept first. If no look comes of it, it is due again later:
    /// what cannot be done is not tried all the time.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.look_at = Some(now + RETRY);
        self.is_sweep_wanted || now >= self.sweep_by
    }

    /// Has the rings looked at again right away.
    pub(super) fn look_soon(&mut self, now: Instant) {
        self.look_at = Some(now + PAUSE_MIN);
    }

    /// When the rings are to be looked at again, after a sweep if one is due.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// The flow table has been swept.
    pub(super) fn note_sweep(&mut self, now: Instant) {
        self.sweep_by = now + SWEEP_PERIOD_MAX;
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::abi::{FINGERPRINT_MIN, FlowEntry, FlowRecord, FlowState, Service};

    use super::*;
    use crate::transition::sweep::{Directory, Expired, Fate, Knowledge, Sweep, SweptService};

    /// Has every backend, and a ring in which nothing moves.
    struct Calm;

    impl Directory for Calm {
        fn service_of(&self, _backend_id: u16, _generation: u16) -> Option<SweptService<'_>> {
            Some(SweptService {
                service: Service::zeroed(),
                transition: None,
            })
        }
    }

    /// An entry of a flow that is silent from second 0 on.
    const SILENT: FlowEntry = FlowEntry {
        fingerprint: FINGERPRINT_MIN,
        record: FlowRecord::new(1, 1, 0, FlowState::OPEN),
    };

    /// How long a silent flow's record stays on a node where nothing else happens, and which starts anew so often.
    /// Unit: seconds.
    fn lifetime_s(restart_period_s: u64) -> u64 {
        let began = Instant::now();
        let mut now_s = 0;
        loop {
            let now = began + Duration::from_secs(now_s);
            let mut agenda = Agenda::new(now);
            agenda.note_look(Wanted::default(), now);
            let restart = now + Duration::from_secs(restart_period_s);
            while let Some(now) = agenda.look_at().filter(|look_at| *look_at < restart) {
                now_s = (now - began).as_secs();
                if agenda.begin(now) {
                    let remaining_s = SILENT.record.remaining_s(now_s as u32);
                    assert!(remaining_s < 0, "{remaining_s} s remain after {now_s} s");
                    let mut sweep = Sweep::begin(now_s as u32, Expired::Keep, Knowledge::Own, []);
                    if sweep.visit(&SILENT, || 0, &Calm) == Fate::Delete {
                        return now_s;
                    }
                    agenda.note_sweep(now);
                }
                agenda.note_look(Wanted::default(), now);
            }
            now_s = (restart - began).as_secs();
            assert!(now_s < u64::from(u32::MAX), "nobody ever sweeps it");
        }
    }

    #[test]
    fn a_record_is_swept_before_its_expiry_is_one_of_the_future() {
        let day_s = 86_400;
        for restart_period_s in [day_s, 5 * day_s, 8 * day_s, 50 * 365 * day_s] {
            let days = lifetime_s(restart_period_s) / day_s;
            assert!((30..=40).contains(&days), "{days} days");
        }
    }

    #[test]
    fn what_the_rings_want_comes_before_the_period_is_over() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        let second = Duration::from_secs(1);
        let wanted = Wanted {
            look_in: Some(second),
            sweep: false,
        };
        agenda.note_look(wanted, now);
        assert_eq!(agenda.look_at(), Some(now + second));
        assert!(!agenda.begin(now + second));
        let wanted = Wanted {
            sweep: true,
            ..wanted
        };
        agenda.note_look(wanted, now);
        assert_eq!(agenda.look_at(), Some(now + PAUSE_MIN));
        assert!(agenda.begin(now));
    }

    #[test]
    fn what_comes_to_nothing_is_tried_again_later() {
        let now = Instant::now();
        let mut agenda = Agenda::new(now);
        agenda.look_soon(now);
        let due = agenda.look_at().expect("a look soon");
        assert!(!agenda.begin(due));
        assert_eq!(agenda.look_at(), Some(due + RETRY));
    }
}
