//! Why a backend that answers has not the role that its service is for, in words.

use super::judge::Finding;
use super::outcome::Observed;
use super::roster::ServicePlan;
use crate::model::Health;
use crate::model::check::Role;

/// What is said of a backend that has got the role.
const HAS_ROLE: &str = "has the service's role";

/// What speaks against it. `observed` is what its last good answer said; `alarm` is what the service's
/// writable backends have caused.
pub(super) fn reason(
    plan: &ServicePlan,
    observed: Option<&Observed>,
    alarm: Option<&str>,
) -> String {
    let Some(observed) = observed else {
        return "has not said whether it accepts writes".to_owned();
    };
    let is_writable = observed.writable == Some(true);
    match plan.role {
        Role::Reader if is_writable => "accepts writes: it is no replica".to_owned(),
        Role::Reader => about_replica(plan.max_lag_s, observed),
        _ if is_writable => alarm
            .unwrap_or("is not the only one that accepts writes")
            .to_owned(),
        _ => "is read-only".to_owned(),
    }
}

/// Why a finding has become another: what the backend has answered, and why it is unfit if it is.
pub(super) fn why(
    before: Finding,
    after: Finding,
    (answer, unfit): (&str, Option<&str>),
) -> String {
    let has_turned = before.health != after.health;
    match unfit {
        Some(_) if after.health == Health::Down => answer.to_owned(),
        Some(unfit) if has_turned => format!("{answer}; {unfit}"),
        Some(unfit) if before.fit != after.fit => unfit.to_owned(),
        None if !has_turned && before.fit != after.fit => HAS_ROLE.to_owned(),
        _ => answer.to_owned(),
    }
}

fn about_replica(max_lag_s: Option<u32>, observed: &Observed) -> String {
    match (observed.replication_running, max_lag_s, observed.lag_s) {
        (None, ..) => "replicates from nobody".to_owned(),
        (Some(false), ..) => "its replication has stopped".to_owned(),
        (Some(true), Some(max_s), Some(lag_s)) if lag_s > max_s => {
            format!("replica is {lag_s} s behind, more than max_lag {max_s} s")
        }
        (Some(true), Some(_), None) => "does not know how far it is behind".to_owned(),
        (Some(true), ..) => "is not needed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::check::CheckMode;
    use crate::model::{AgentState, Fit};

    fn plan(role: Role, max_lag_s: Option<u32>) -> ServicePlan {
        ServicePlan {
            mode: CheckMode::All,
            role,
            max_lag_s,
            primary_as_last_resort: false,
            backends: BTreeMap::new(),
        }
    }

    fn observed(writable: bool, running: Option<bool>, lag_s: Option<u32>) -> Observed {
        Observed {
            writable: Some(writable),
            replication_running: running,
            lag_s,
            ..Observed::default()
        }
    }

    #[test]
    fn each_way_to_be_unfit_has_its_words() {
        let (reader, writer) = (plan(Role::Reader, Some(5)), plan(Role::Writer, None));
        for (plan, observed, expected) in [
            (
                &reader,
                observed(true, None, None),
                "accepts writes: it is no replica",
            ),
            (
                &reader,
                observed(false, None, None),
                "replicates from nobody",
            ),
            (
                &reader,
                observed(false, Some(false), None),
                "its replication has stopped",
            ),
            (
                &reader,
                observed(false, Some(true), Some(42)),
                "replica is 42 s behind, more than max_lag 5 s",
            ),
            (
                &reader,
                observed(false, Some(true), None),
                "does not know how far it is behind",
            ),
            (
                &writer,
                observed(false, Some(true), Some(0)),
                "is read-only",
            ),
            (&writer, observed(true, None, None), "two accept writes"),
        ] {
            let said = reason(plan, Some(&observed), Some("two accept writes"));
            assert_eq!(said, expected);
        }
        let said = reason(&reader, None, None);
        assert_eq!(said, "has not said whether it accepts writes");
    }

    #[test]
    fn a_change_is_explained_by_the_answer_or_by_the_role() {
        let finding = |health, fit| Finding {
            health,
            fit,
            agent: AgentState::default(),
        };
        let (up, down) = (
            finding(Health::Up, Fit::Fit),
            finding(Health::Down, Fit::Fit),
        );
        let (unfit, dead) = (
            finding(Health::Up, Fit::Unfit),
            finding(Health::Down, Fit::Unfit),
        );
        let read_only = Some("is read-only");
        for (before, after, reasons, expected) in [
            (up, down, ("refused", None), "refused"),
            (up, dead, ("refused", read_only), "refused"),
            (up, unfit, ("answers", read_only), "is read-only"),
            (dead, unfit, ("answers", read_only), "answers; is read-only"),
            (unfit, up, ("answers", None), HAS_ROLE),
            (dead, up, ("answers", None), "answers"),
            (unfit, unfit, ("agent: drain", read_only), "agent: drain"),
        ] {
            assert_eq!(
                why(before, after, reasons),
                expected,
                "{before:?} {after:?}"
            );
        }
    }
}
