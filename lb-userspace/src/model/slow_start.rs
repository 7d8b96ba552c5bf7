//! Slow start: a backend that becomes eligible again gets its weight back little by little. Pure;
//! time is passed in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{Model, Protocol, Service};

/// Steps at most, from a tenth of the weight to all of it: each one moves slots.
const STEPS_MAX: u64 = 10;

/// A step lasts at least this long: each one is a transition of the ring. Unit: milliseconds.
const STEP_MS_MIN: u64 = 1_000;

/// The weight of a backend that has been eligible for `since_eligible_ms`, where it takes
/// `slow_start_ms` to grow to `weight`. It begins with a tenth and grows linearly, in ten steps, or
/// one a second where ten would be more than that. At least 1: a weight below 10 begins with more than
/// a tenth.
pub fn weight(weight: u32, since_eligible_ms: u64, slow_start_ms: u64) -> u32 {
    if since_eligible_ms >= slow_start_ms {
        return weight;
    }
    let steps = step_count(slow_start_ms);
    let done = since_eligible_ms * steps / slow_start_ms;
    let (part, whole) = (steps + (STEPS_MAX - 1) * done, STEPS_MAX * steps);
    let scaled = (u64::from(weight) * part + whole / 2) / whole;
    // Less than `weight`, which is 32 bits wide.
    (scaled as u32).max(1)
}

/// How long until the weight grows again; `None` = it has its full size. Unit: milliseconds.
pub fn next_step_ms(since_eligible_ms: u64, slow_start_ms: u64) -> Option<u64> {
    if since_eligible_ms >= slow_start_ms {
        return None;
    }
    let steps = step_count(slow_start_ms);
    let next = since_eligible_ms * steps / slow_start_ms + 1;
    Some((next * slow_start_ms).div_ceil(steps) - since_eligible_ms)
}

fn step_count(slow_start_ms: u64) -> u64 {
    (slow_start_ms / STEP_MS_MIN).clamp(1, STEPS_MAX)
}

/// What makes a backend the same backend, whatever its name: VIP, port and protocol of its service,
/// its own address and port.
type Key = (IpAddr, u16, Protocol, IpAddr, u16);

fn key(service: &Service, address: IpAddr, port: u16) -> Key {
    (service.vip, service.port, service.protocol, address, port)
}

/// Remembers since when backends have been eligible, in the caller's milliseconds. Those that are so
/// when their service is first seen have been for ever: there is nobody to spare them for.
#[derive(Clone, Debug, Default)]
pub struct Eligibility {
    since_ms: BTreeMap<Key, Option<u64>>,
}

impl Eligibility {
    /// Compares with the model as it is now.
    pub fn observe(&mut self, model: &Model, now_ms: u64) {
        let mut seen = BTreeMap::new();
        for service in model.services.values() {
            // Of a service where nobody is eligible nothing is known either; it starts at full weight.
            let is_known = self.knows(service);
            for backend in service.eligible() {
                let key = key(service, backend.address, backend.port);
                let newly = is_known.then_some(now_ms);
                seen.insert(key, self.since_ms.get(&key).copied().unwrap_or(newly));
            }
        }
        self.since_ms = seen;
    }

    fn knows(&self, service: &Service) -> bool {
        let least = key(service, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut after = self.since_ms.range(least..);
        after.next().is_some_and(|(first, _)| {
            (first.0, first.1, first.2) == (service.vip, service.port, service.protocol)
        })
    }

    /// For how long a backend has been eligible; `None` = for ever. Unit: milliseconds.
    pub fn eligible_for_ms(
        &self,
        service: &Service,
        address: IpAddr,
        port: u16,
        now_ms: u64,
    ) -> Option<u64> {
        let since_ms = self.since_ms.get(&key(service, address, port))?;
        since_ms.map(|since_ms| now_ms.saturating_sub(since_ms))
    }

    /// How long until some weight grows; `None` = all have their full size. Unit: milliseconds.
    pub fn next_step_ms(&self, model: &Model, now_ms: u64) -> Option<u64> {
        let services = model.services.values();
        let steps = services.flat_map(|service| {
            let slow_start_ms = u64::from(service.policies.slow_start_s) * 1_000;
            service.backends.values().filter_map(move |backend| {
                let since = self.eligible_for_ms(service, backend.address, backend.port, now_ms)?;
                next_step_ms(since, slow_start_ms)
            })
        });
        steps.min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::tests::model;
    use super::super::{AdminState, Change, Urgency};
    use super::*;

    #[test]
    fn the_weight_grows_linearly_from_a_tenth_in_ten_steps() {
        let at = |since_ms| weight(1_000, since_ms, 30_000);
        assert_eq!(
            [0, 2_999, 3_000, 15_000, 29_999, 30_000].map(at),
            [100, 100, 190, 550, 910, 1_000]
        );
        let weights: std::collections::BTreeSet<u32> = (0..=30_000).map(at).collect();
        assert_eq!(weights.len(), 11, "ten steps");
    }

    #[test]
    fn a_short_slow_start_has_a_step_a_second() {
        let at = |since_ms| weight(100, since_ms, 2_000);
        assert_eq!([0, 999, 1_000, 2_000].map(at), [10, 10, 55, 100]);
        assert_eq!(weight(100, 0, 1_000), 10);
        assert_eq!(weight(100, 0, 0), 100, "off");
    }

    #[test]
    fn the_least_weight_is_one_and_the_largest_does_not_overflow() {
        assert_eq!(weight(1, 0, 60_000), 1);
        assert_eq!(weight(u32::MAX, 0, 3_600_000), u32::MAX / 10 + 1);
    }

    #[test]
    fn the_weight_changes_at_the_next_step_and_not_before() {
        for slow_start_ms in [1_000, 7_300, 30_000, 3_600_000] {
            let mut now_ms = 0;
            let mut steps = 0;
            while let Some(next) = next_step_ms(now_ms, slow_start_ms) {
                let before = weight(1_000, now_ms, slow_start_ms);
                assert_eq!(weight(1_000, now_ms + next - 1, slow_start_ms), before);
                assert!(weight(1_000, now_ms + next, slow_start_ms) > before);
                now_ms += next;
                steps += 1;
            }
            assert_eq!(now_ms, slow_start_ms);
            assert!(steps <= 10);
        }
    }

    fn admin(model: &Model, state: AdminState) -> Model {
        let change = Change::SetBackendAdmin {
            service: "web".to_owned(),
            backend: "web1".to_owned(),
            admin: state,
            urgency: Urgency::Planned,
        };
        model.apply(change).unwrap().0
    }

    #[test]
    fn who_comes_back_is_told_from_who_was_there() {
        let mut ready = model();
        ready.services.get_mut("web").unwrap().policies.slow_start_s = 10;
        let web = &ready.services["web"];
        let mut eligibility = Eligibility::default();
        eligibility.observe(&ready, 1_000);
        let since = |eligibility: &Eligibility, name: &str, now_ms| {
            let backend = &web.backends[name];
            eligibility.eligible_for_ms(web, backend.address, backend.port, now_ms)
        };
        assert_eq!(since(&eligibility, "web1", 9_000), None);
        assert_eq!(eligibility.next_step_ms(&ready, 1_000), None);

        eligibility.observe(&admin(&ready, AdminState::Drain), 2_000);
        eligibility.observe(&ready, 3_000);
        eligibility.observe(&ready, 4_000);
        assert_eq!(since(&eligibility, "web1", 4_500), Some(1_500));
        assert_eq!(since(&eligibility, "web2", 4_500), None);
        assert_eq!(eligibility.next_step_ms(&ready, 4_500), Some(500));
        assert_eq!(eligibility.next_step_ms(&ready, 13_000), None);
    }
}
