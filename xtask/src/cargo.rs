//! Starting cargo from inside `cargo run`, with an environment as if a person had typed it.

use std::env;
use std::process::Command;

use crate::workspace::Workspace;

/// Variables of these exact names describe the outer build, not what the person asked for.
const LEAKING_NAMES: [&str; 8] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
];

/// As [`LEAKING_NAMES`], for families of variables. The rest of `CARGO_*` (home, network,
/// registries) is the person's own configuration and stays.
const LEAKING_PREFIXES: [&str; 8] = [
    "CARGO_BIN_",
    "CARGO_BUILD_RUST",
    "CARGO_BUILD_TARGET",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
];

/// A cargo command in the workspace's root, with the build directory of the workspace.
pub(crate) fn command(workspace: &Workspace, subcommand: &str) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(&name);
        }
    }
    command.current_dir(workspace.root());
    command.env("CARGO_TARGET_DIR", workspace.target());
    command.arg(subcommand);
    command
}

fn leaks(name: &str) -> bool {
    LEAKING_NAMES.contains(&name)
        || LEAKING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::leaks;

    #[test]
    fn outer_build_leaks_and_personal_configuration_does_not() {
        for name in [
            "RUSTFLAGS",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "RUSTC_WRAPPER",
        ] {
            assert!(leaks(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "RUSTUP_TOOLCHAIN",
            "CARGO_BUILD_JOBS",
        ] {
            assert!(!leaks(name), "{name}");
        }
    }
}
