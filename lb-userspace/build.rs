//! Brings the XDP program, built by `cargo xtask build`, to where `include_bytes!` finds it. Without
//! it an empty file takes its place, so that plain cargo works; the loader then says what to run. And
//! the version, as `LB_VERSION`.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The object's name in the `bpf` directory of the target directory.
const OBJECT: &str = "lb-ebpf";

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let objects = objects_dir(&out_dir);
    // Cargo runs this again, and builds the crate again, whenever a file that it was told of is
    // missing. The directory stands in for an object that is not built yet.
    fs::create_dir_all(&objects).unwrap_or_else(|error| panic!("{}: {error}", objects.display()));
    println!("cargo::rerun-if-changed={}", objects.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=LB_VERSION={}", version());

    let bytes = fs::read(objects.join(OBJECT)).unwrap_or_default();
    let copy = out_dir.join(OBJECT);
    fs::write(&copy, bytes).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
}

/// The package's version, with the label that tells two builds of the same sources apart, if there is
/// one.
fn version() -> String {
    println!("cargo::rerun-if-env-changed=LB_BUILD_LABEL");
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    match env::var("LB_BUILD_LABEL") {
        Ok(label) if !label.is_empty() => format!("{version}+{label}"),
        _ => version,
    }
}

/// `TARGET/bpf`, wherever cargo was told to put its target directory: `OUT_DIR` is
/// `TARGET/PROFILE/build/PACKAGE/out`, or the same below `TARGET/TRIPLE` with `--target`.
fn objects_dir(out_dir: &Path) -> PathBuf {
    let above_profile: Vec<PathBuf> = out_dir
        .ancestors()
        .skip(4)
        .take(2)
        .map(|directory| directory.join("bpf"))
        .collect();
    let existing = above_profile.iter().find(|directory| directory.is_dir());
    existing
        .or(above_profile.first())
        .unwrap_or_else(|| {
            panic!(
                "OUT_DIR is not below a target directory: {}",
                out_dir.display()
            )
        })
        .clone()
}
