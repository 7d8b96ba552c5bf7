//! Debian packages that the tests and the demo use as real parts, by the program they bring.

use std::process::Command;

use anyhow::{Context, Result, bail};
use lb_lab::requirement::find_program;

use crate::progress;
use crate::run::as_root;

/// (program, Debian package that brings it)
const PACKAGES: [(&str, &str); 27] = [
    ("/usr/bin/python3", "python3"),
    (
        "/usr/lib/python3/dist-packages/grpc/__init__.py",
        "python3-grpcio",
    ),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("gunicorn", "gunicorn"),
    ("haproxy", "haproxy"),
    ("initdb", "postgresql"),
    ("ip", "iproute2"),
    ("keepalived", "keepalived"),
    ("mariadb", "mariadb-client"),
    ("mariadb-install-db", "mariadb-server"),
    ("mariadbd", "mariadb-server"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("node", "nodejs"),
    ("pg_basebackup", "postgresql"),
    ("php-fpm", "php-fpm"),
    ("ping", "iputils-ping"),
    ("postgres", "postgresql"),
    ("promtool", "prometheus"),
    ("psql", "postgresql-client"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("setpriv", "util-linux"),
    ("tshark", "tshark"),
];

/// What the end-to-end tests use.
pub(crate) const FOR_TESTS: [&str; 27] = [
    "/usr/bin/python3",
    "/usr/lib/python3/dist-packages/grpc/__init__.py",
    "curl",
    "dig",
    "dnsmasq",
    "ethtool",
    "gunicorn",
    "haproxy",
    "initdb",
    "ip",
    "keepalived",
    "mariadb",
    "mariadb-install-db",
    "mariadbd",
    "nft",
    "nginx",
    "node",
    "pg_basebackup",
    "php-fpm",
    "ping",
    "postgres",
    "promtool",
    "psql",
    "redis-cli",
    "redis-server",
    "setpriv",
    "tshark",
];

/// What the disruption proof uses.
pub(crate) const FOR_DISRUPTION: [&str; 2] = ["ip", "nginx"];

/// What the proof of detection uses.
pub(crate) const FOR_DETECTION: [&str; 3] = ["ip", "nft", "nginx"];

/// What the failover proof uses.
pub(crate) const FOR_FAILOVER: [&str; 5] = ["haproxy", "ip", "keepalived", "nft", "nginx"];

/// What the soak uses.
pub(crate) const FOR_SOAK: [&str; 8] = [
    "dig",
    "dnsmasq",
    "ip",
    "mariadb",
    "mariadb-install-db",
    "mariadbd",
    "nginx",
    "redis-server",
];

/// What the demo can use.
pub(crate) const FOR_DEMO: [&str; 2] = ["ip", "nginx"];

/// What is done about programs that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Their packages are installed.
    Install,
    /// Nothing: one does without.
    Refuse,
}

/// Installs the packages given as arguments. No service of theirs is started: policy-rc.d forbids it
/// (invoke-rc.d(8)), and is gone again afterwards unless it was there before. The package lists are
/// fetched only if they do not do.
const INSTALL_SCRIPT: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"; }
install "$@" || { apt-get update && install "$@"; }
"#;

/// Installs what brings the missing ones of `programs`. `reason` completes "installing … :".
pub(crate) fn ensure(programs: &[&str], reason: &str) -> Result<()> {
    let missing = missing_programs(programs);
    if missing.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        bail!(
            "missing programs: {}; there is no apt-get here, install them with the system's own means",
            missing.join(", ")
        );
    }
    let mut packages: Vec<&str> = missing.iter().map(|program| package_of(program)).collect();
    packages.sort_unstable();
    packages.dedup();
    progress::step(&format!(
        "installing Debian packages {}: {reason}",
        packages.join(", ")
    ));
    let mut shell: Command = as_root("sh".as_ref());
    shell
        .args(["-c", INSTALL_SCRIPT, "install-packages"])
        .args(&packages);
    progress::run_quietly(&mut shell, "installing packages").with_context(|| {
        let packages = packages.join(" ");
        format!("run `apt-get update && apt-get install {packages}` as root, then this task again")
    })
}

/// Those of `programs` that the machine does not have.
pub(crate) fn missing_programs<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    programs
        .iter()
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect()
}

/// A program that is not in the table is taken for a package of its own name.
fn package_of(program: &str) -> &str {
    PACKAGES
        .iter()
        .find(|(known, _)| *known == program)
        .map_or(program, |(_, package)| package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_in_use_has_a_package() {
        let of_proofs = FOR_DISRUPTION.iter().chain(&FOR_DETECTION).chain(&FOR_SOAK);
        let of_proofs = of_proofs.chain(&FOR_FAILOVER);
        for program in FOR_TESTS.iter().chain(of_proofs).chain(&FOR_DEMO) {
            assert!(
                PACKAGES.iter().any(|(known, _)| known == program),
                "{program}"
            );
        }
        assert_eq!(package_of("dig"), "bind9-dnsutils");
    }
}
