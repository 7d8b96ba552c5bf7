//! Making a failing history small: fewer events, fewer clients, as long as it still fails.

use crate::plan::Case;

/// The smallest case found that still fails. Every client and every attacker has randomness of its own,
/// so that what is left behaves as before for the most part.
pub(crate) fn shrink(case: Case, still_fails: impl Fn(&Case) -> bool) -> Case {
    let mut smallest = case;
    loop {
        let smaller = fewer_events(&smallest, &still_fails)
            .or_else(|| fewer_clients(&smallest, &still_fails));
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Leaves out a run of events: half of them, a quarter, … one.
fn fewer_events(case: &Case, still_fails: &impl Fn(&Case) -> bool) -> Option<Case> {
    let count = case.events.len();
    let mut run = count.div_ceil(2);
    while run > 0 {
        for start in (0..count).step_by(run) {
            let mut smaller = case.clone();
            smaller.events.drain(start..(start + run).min(count));
            if still_fails(&smaller) {
                return Some(smaller);
            }
        }
        run /= 2;
    }
    None
}

fn fewer_clients(case: &Case, still_fails: &impl Fn(&Case) -> bool) -> Option<Case> {
    let sizes = [case.client_count / 2, case.client_count * 9 / 10];
    let candidates = sizes.into_iter().filter(|count| *count > 0);
    candidates
        .map(|client_count| Case {
            client_count,
            ..case.clone()
        })
        .find(|smaller| smaller != case && still_fails(smaller))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let mut case = Case::of(&Plan::small(1));
        case.events = (0..40).collect();
        let small = shrink(case, |case| {
            case.events.contains(&7) && case.events.contains(&31) && case.client_count >= 20
        });
        assert_eq!(small.events, [7, 31]);
        assert!(small.client_count < 25, "{}", small.client_count);
    }
}
