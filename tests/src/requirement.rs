//! What a test needs from the machine. A test that lacks it is skipped, and its name and the reason
//! are logged, so that the test runner can count and name it.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

/// The file that skipped tests are logged to, one line each: `TEST: missing PROGRAM, PROGRAM`. Set
/// by `cargo xtask test`.
pub const SKIP_LOG_VARIABLE: &str = "LB_SKIP_LOG";

/// Looked through after `PATH`, which for users other than root often lacks them.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Whether the machine has what a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a test whose requirement is missing returns early"]
pub enum Requirement {
    /// Go on.
    Met,
    /// Return; the skip has been logged.
    Missing,
}

impl Requirement {
    /// `if require(&["nginx"]).is_missing() { return; }`
    pub fn is_missing(self) -> bool {
        self == Self::Missing
    }
}

/// Whether this process may make network namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Asks for root and for `programs`; logs the calling test as skipped where something is missing.
pub fn require(programs: &[&str]) -> Requirement {
    let mut missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect();
    if !is_root() {
        missing.insert(0, "root");
    }
    if missing.is_empty() {
        return Requirement::Met;
    }
    // libtest names each test's thread after the test.
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    log_skip(&format!("{test}: missing {}", missing.join(", ")));
    Requirement::Missing
}

fn log_skip(line: &str) {
    eprintln!("skipped: {line}");
    let Some(path) = env::var_os(SKIP_LOG_VARIABLE) else {
        return;
    };
    let logged = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = logged {
        panic!("cannot log a skipped test to {}: {error}", path.display());
    }
}

/// Where `program` is installed. A path is looked for as it is.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .or_else(|| find_version(program))
}

/// Programs that Debian installs in several versions: a directory, how the names in it begin, before the
/// version; and where the program lies below that, if it is not that itself.
const VERSIONED: [(&str, &str, &str, &str); 4] = [
    ("php-fpm", "/usr/sbin", "php-fpm", ""),
    ("initdb", "/usr/lib/postgresql", "", "bin/initdb"),
    (
        "pg_basebackup",
        "/usr/lib/postgresql",
        "",
        "bin/pg_basebackup",
    ),
    ("postgres", "/usr/lib/postgresql", "", "bin/postgres"),
];

/// The newest version of `program`: `php-fpm` is found as `php-fpm8.2`.
fn find_version(program: &str) -> Option<PathBuf> {
    let (_, directory, begin, below) = VERSIONED.iter().find(|(name, ..)| *name == program)?;
    newest(Path::new(directory), begin, below)
}

fn newest(directory: &Path, begin: &str, below: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let versions = entries.filter_map(|entry| {
        let name = entry.file_name();
        let version: f32 = name.to_str()?.strip_prefix(begin)?.parse().ok()?;
        let path = match below {
            "" => entry.path(),
            below => entry.path().join(below),
        };
        path.is_file().then_some((version, path))
    });
    let newest = versions.max_by(|(one, _), (other, _)| one.total_cmp(other));
    newest.map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch::ScratchDir;

    #[test]
    fn programs_are_found_in_the_path_and_invented_ones_are_not() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-program-has-this-name"), None);
    }

    #[test]
    fn the_newest_version_is_found() {
        let scratch = ScratchDir::new("versions").unwrap();
        for name in ["fpm8.2", "fpm7.4", "fpm", "fpm.old"] {
            scratch.write(name, "").unwrap();
        }
        let found = newest(scratch.path(), "fpm", "");
        assert_eq!(found, Some(scratch.path().join("fpm8.2")));

        for version in ["9.6", "15", "17"] {
            fs::create_dir(scratch.path().join(version)).unwrap();
        }
        for version in ["9.6", "15"] {
            scratch.write(&format!("{version}/tool"), "").unwrap();
        }
        let found = newest(scratch.path(), "", "tool");
        assert_eq!(found, Some(scratch.path().join("15/tool")));
        assert_eq!(newest(scratch.path(), "other", ""), None);
    }
}
