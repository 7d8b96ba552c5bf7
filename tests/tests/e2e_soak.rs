//! Thousands of checks of every cheap type leave nothing behind, neither at lbd nor at the servers. `cargo
//! xtask test soak` makes a hundred thousand.

use lb_lab::require;
use lb_lab::soak::run::run;

const CHECKS: u64 = 5_000;

#[test]
fn thousands_of_checks_leave_nothing_behind() {
    let programs = [
        "dig",
        "dnsmasq",
        "ip",
        "mariadb",
        "mariadb-install-db",
        "mariadbd",
        "nginx",
        "redis-server",
    ];
    if require(&programs).is_missing() {
        return;
    }
    let findings = run(CHECKS, |_| {}).unwrap();
    println!("{findings}");
    let faults = findings.faults();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(findings.total() >= CHECKS);
    for check_type in [
        "tcp", "http", "https", "mysql", "redis", "exec", "udp", "dns", "icmp",
    ] {
        assert!(findings.counts[check_type].good > 0, "{check_type}");
    }
    for check_type in ["hopeless tcp", "hopeless http", "hopeless exec"] {
        assert!(findings.counts[check_type].bad > 0, "{check_type}");
    }
}
