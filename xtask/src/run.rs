//! `cargo xtask run -- --iface eth0 [--config lbd.toml]`: builds, then becomes `lbd`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::workspace::Workspace;

/// What may follow `cargo xtask run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// What lbd gets: `--iface eth0` (again for more interfaces), `--config lbd.toml`, …
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "LBD ARGS"
    )]
    lbd_args: Vec<OsString>,
}

/// `cargo xtask run`
pub(crate) fn task(workspace: &Workspace, args: &RunArgs) -> Result<ExitCode> {
    build::everything(workspace)?;
    become_root_program(workspace, "lbd", &in_the_foreground(&args.lbd_args))
}

/// Somebody who ends lbd with Ctrl-C wants the machine as it was, unless he says otherwise.
fn in_the_foreground(lbd_args: &[OsString]) -> Vec<OsString> {
    let is_on_stop = |arg: &OsString| arg.to_string_lossy().starts_with("--on-stop");
    let mut args = lbd_args.to_vec();
    if !lbd_args.iter().any(is_on_stop) {
        args.extend(["--on-stop", "detach"].map(OsString::from));
    }
    args
}

/// Replaces this process by a built program, through sudo where not root. The program inherits the
/// terminal, every signal and the exit code; sudo passes SIGINT and SIGTERM on.
pub(crate) fn become_root_program(
    workspace: &Workspace,
    name: &str,
    args: &[OsString],
) -> Result<ExitCode> {
    become_command(as_root(workspace.release(name).as_os_str()), args)
}

/// As [`become_root_program`], as whoever runs xtask.
pub(crate) fn become_program(
    workspace: &Workspace,
    name: &str,
    args: &[OsString],
) -> Result<ExitCode> {
    become_command(Command::new(workspace.release(name)), args)
}

fn become_command(mut command: Command, args: &[OsString]) -> Result<ExitCode> {
    let error = command.args(args).exec();
    Err(error).with_context(|| format!("cannot start {:?}", command.get_program()))
}

/// A command that runs `program` as root.
pub(crate) fn as_root(program: &std::ffi::OsStr) -> Command {
    if lb_lab::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args([PRESERVED_ENV, "--"]).arg(program);
    command
}

/// What of the environment means something to our programs.
pub(crate) const PRESERVED_ENV: &str =
    "--preserve-env=RUST_LOG,RUST_BACKTRACE,NO_COLOR,LBD_LOG,LBCTL_SOCKET,LB_SKIP_LOG,CI";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreground_leaves_nothing_behind_unless_told_to() {
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(
            in_the_foreground(&args(&["--iface", "eth0"])),
            args(&["--iface", "eth0", "--on-stop", "detach"])
        );
        for told in [&["--on-stop", "keep"][..], &["--on-stop=keep"]] {
            assert_eq!(in_the_foreground(&args(told)), args(told));
        }
    }
}
