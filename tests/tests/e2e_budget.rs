//! A web server dies under a load of 600 requests a second: no more of them fail than its check allows, and
//! none after that. `cargo xtask test detection` repeats it, and tells how soon each death is found out.

use std::time::Duration;

use lb_lab::outage::death::Death;
use lb_lab::outage::outcome::CheckTiming;
use lb_lab::outage::proof::Proof;
use lb_lab::outage::report;
use lb_lab::{Forward, require};

const TIMING: CheckTiming = CheckTiming {
    interval: Duration::from_millis(500),
    fast_interval: Duration::from_millis(100),
    timeout: Duration::from_millis(250),
    fall: 3,
};

/// One death of each kind.
fn deaths_cost_what_the_check_allows(forward: Forward) {
    if require(&["ip", "nginx", "nft"]).is_missing() {
        return;
    }
    let mut proof = Proof::start(forward, TIMING).unwrap();
    let mut faults = Vec::new();
    for death in Death::ALL {
        let outcome = proof.suffer(death).unwrap();
        println!("{}", report::line(&outcome));
        assert!(
            outcome.failed_total() > 0,
            "nobody met the dead: {outcome:?}"
        );
        faults.extend(outcome.faults());
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn deaths_under_load_cost_what_the_check_allows_with_dsr() {
    deaths_cost_what_the_check_allows(Forward::Dsr);
}

#[test]
fn deaths_under_load_cost_what_the_check_allows_with_nat() {
    deaths_cost_what_the_check_allows(Forward::Nat);
}
