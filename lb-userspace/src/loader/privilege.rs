//! What the process must be allowed to do.

use std::io;

use super::LoadError;

/// Capabilities by their bit in the kernel's masks (`include/uapi/linux/capability.h`), with what
/// they are needed for.
const NEEDED: [(u32, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "to attach XDP and to add VIPs"),
    (13, "CAP_NET_RAW", "to announce VIPs"),
    (PERFMON, "CAP_PERFMON", "to load the XDP program"),
    (BPF, "CAP_BPF", "to load the XDP program"),
];

const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// `CAP_SYS_ADMIN` stands in for `CAP_BPF` and `CAP_PERFMON`.
const SYS_ADMIN: u32 = 21;

/// The process lacks capabilities.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("lbd lacks {}; run it as root, or give it the capability", missing.join(", "))]
pub struct MissingCapabilities {
    missing: Vec<String>,
}

/// Checks the effective capabilities.
pub(super) fn check() -> Result<(), MissingCapabilities> {
    // Where procfs is not readable, the kernel's own answers decide.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_mask(&status).map_or(Ok(()), check_mask)
}

fn effective_mask(status: &str) -> Option<u64> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn check_mask(mask: u64) -> Result<(), MissingCapabilities> {
    let holds = |bit: u32| mask & (1 << bit) != 0;
    let has = |bit: u32| holds(bit) || matches!(bit, PERFMON | BPF) && holds(SYS_ADMIN);
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(bit, ..)| !has(*bit))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(MissingCapabilities { missing })
}

/// An error with `EPERM` in its chain is a matter of privilege although the capabilities are there
/// (a user namespace, a lockdown, a seccomp filter); any other is what `otherwise` says.
pub(super) fn or(
    error: anyhow::Error,
    otherwise: impl FnOnce(anyhow::Error) -> LoadError,
) -> LoadError {
    let is_denied = error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
    });
    if !is_denied {
        return otherwise(error);
    }
    otherwise(error.context(
        "permission denied: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed in the initial user \
         namespace, and no lockdown or seccomp filter in the way",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing() {
        let status = "Name:\tlbd\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(check_mask(effective_mask(status).unwrap()), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose() {
        let error = check_mask(1 << 12 | 1 << SYS_ADMIN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lbd lacks CAP_NET_RAW (to announce VIPs); run it as root, or give it the capability"
        );
        assert_eq!(check_mask(0).unwrap_err().missing.len(), 4);
    }

    #[test]
    fn a_status_without_the_line_is_no_answer() {
        assert_eq!(effective_mask("Name:\tlbd\n"), None);
    }
}
