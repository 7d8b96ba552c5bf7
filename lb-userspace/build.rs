//! Brings the XDP program, built by `cargo xtask build`, to where `include_bytes!` finds it. Without
//! it an empty file takes its place, so that plain cargo works; the loader then says what to run.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The object's name in the `bpf` directory of the target directory.
const OBJECT: &str = "lb-ebpf";

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = target_dir(&out_dir).join("bpf").join(OBJECT);
    let bytes = fs::read(&object).unwrap_or_default();
    let copy = out_dir.join(OBJECT);
    fs::write(&copy, bytes).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
}

/// The target directory: the one that cargo was told to use, else the workspace's.
fn target_dir(out_dir: &Path) -> PathBuf {
    if let Some(directory) = env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(directory);
    }
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    manifest.parent().unwrap_or(out_dir).join("target")
}
