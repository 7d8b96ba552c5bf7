//! Fetching one exact package from a Debian suite that the machine does not list, without touching
//! the system: a private sources list, and private package lists under `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::apt_sources;

/// The suite that carries the rust-src of rustc 1.95.
const SUITE: &str = "trixie-backports";
/// Each download of apt gives up after this long without data. Unit: seconds.
const HTTP_TIMEOUT_S: u32 = 20;

/// Downloads the rust-src of `release` and unpacks it. Returns the directory that stands for `/`.
pub(super) fn fetch_rust_src(scratch: &Path, release: &str) -> Result<PathBuf> {
    let apt = PrivateApt::new(scratch)?;
    apt.run("apt-get", &["update"])?;
    let version = pick_version(&apt.run("apt-cache", &["madison", "rust-src"])?, release)
        .with_context(|| format!("{SUITE} has no rust-src {release}"))?;
    apt.run("apt-get", &["download", &format!("rust-src={version}")])?;
    let package = downloaded_package(scratch)?;
    let unpacked = scratch.join("unpacked");
    let status = Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(&unpacked)
        .status();
    let status = status.context("cannot run dpkg-deb")?;
    ensure!(
        status.success(),
        "`dpkg-deb -x {}` failed ({status})",
        package.display()
    );
    Ok(unpacked)
}

/// From the output of `apt-cache madison`, the version that packages exactly `release`. The suite's
/// newest may be of a later compiler.
fn pick_version(madison: &str, release: &str) -> Option<String> {
    let prefix = format!("{release}+");
    madison
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.starts_with(&prefix))
        .map(str::to_owned)
}

fn downloaded_package(scratch: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(scratch).with_context(|| format!("cannot list {}", scratch.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    bail!("apt-get downloaded no package into {}", scratch.display())
}

/// apt with its state under a directory of ours, so that neither root nor the system's lists are
/// involved.
struct PrivateApt {
    scratch: PathBuf,
    options: Vec<String>,
}

impl PrivateApt {
    fn new(scratch: &Path) -> Result<Self> {
        let mirror = apt_sources::debian_mirror(Path::new("/etc/apt"))?;
        if scratch.exists() {
            fs::remove_dir_all(scratch)
                .with_context(|| format!("cannot remove {}", scratch.display()))?;
        }
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(scratch.join(directory))
                .with_context(|| format!("cannot create {}", scratch.display()))?;
        }
        let list = scratch.join("sources.list");
        fs::write(&list, mirror.one_line(SUITE, "main"))
            .with_context(|| format!("cannot write {}", list.display()))?;
        let at = |name: &str| scratch.join(name).display().to_string();
        let options = vec![
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            // The sandbox's user may not write below target/.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            format!("Acquire::http::Timeout={HTTP_TIMEOUT_S}"),
            format!("Acquire::https::Timeout={HTTP_TIMEOUT_S}"),
            "Acquire::Retries=1".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ];
        Ok(Self {
            scratch: scratch.to_path_buf(),
            options,
        })
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(self.options.iter().flat_map(|option| ["-o", option]))
            .args(args)
            .current_dir(&self.scratch)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .with_context(|| format!("cannot run {program}; this system is not Debian's kin"))?;
        ensure!(
            output.status.success(),
            "`{program} {}` for the suite {SUITE} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::pick_version;

    const MADISON: &str = "\
  rust-src | 1.98.0+dfsg1-1~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages
  rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages
";

    #[test]
    fn version_of_the_pinned_compiler_is_picked_not_the_newest() {
        let picked = pick_version(MADISON, "1.95.0");
        assert_eq!(picked.as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(pick_version(MADISON, "1.96.0"), None);
    }
}
