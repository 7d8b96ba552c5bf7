//! The client: what `lbctl` does with its words.

mod args;
mod commands;
mod datapath;
mod grid;
mod health;
mod health_tables;
mod lives;
mod lives_tables;
mod pair;
mod pair_tables;
mod plan;
mod tables;
mod units;
mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::control::client::ClientError;

/// The command was refused by the daemon; nothing was changed.
const EXIT_REFUSED: u8 = 1;

/// The daemon was not reachable, or nothing was heard of what it did. (Wrong usage is 2, which clap answers.)
const EXIT_UNREACHABLE: u8 = 3;

/// The time to wait is over, and there are flows left.
const EXIT_FLOWS_LEFT: u8 = 4;

/// The time to wait is over, no flow is known, and there may be some that are on no record.
const EXIT_UNCERTAIN: u8 = 5;

/// `lbctl status`: no daemon listens, and the datapath goes on without one.
const EXIT_UNATTENDED: u8 = 6;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the output as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The config file, with every mistake drawn.
    #[error("the config file cannot be used\n{0}")]
    Config(String),
    #[error("{subject} was made ready again: nobody waits for its flows to end")]
    Readied { subject: String },
    #[error("{waited}: {flows} flows are left")]
    FlowsLeft { waited: String, flows: u64 },
    #[error(
        "{waited}: no flow is known, and there may be some that are on no record until they have \
         been silent for the idle time-out: certain in {} if nothing else changes",
        units::duration(*.certain_in_s)
    )]
    Uncertain { waited: String, certain_in_s: u64 },
    #[error(
        "{waited}: no flow is known, and {slots} slots still send new flows there; `lbctl ring show` \
         tells whether another backend can take them"
    )]
    StillServing { waited: String, slots: u32 },
    #[error("no backend `{backend}` has checks; `lbctl health list` shows those that do")]
    NoChecks { backend: String },
    #[error("no lbd listens at {}; the datapath goes on without it", .0.display())]
    Unattended(PathBuf),
    #[error("{0:#}")]
    Detach(anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            // `lbctl … | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Client(ClientError::Refused(error)) if error.leaves_doubt() => {
                EXIT_UNREACHABLE.into()
            }
            Self::Client(ClientError::Refused(_))
            | Self::Output(_)
            | Self::Json(_)
            | Self::Config(_)
            | Self::NoChecks { .. }
            | Self::Readied { .. }
            | Self::Detach(_) => EXIT_REFUSED.into(),
            Self::FlowsLeft { .. } => EXIT_FLOWS_LEFT.into(),
            Self::Uncertain { .. } | Self::StillServing { .. } => EXIT_UNCERTAIN.into(),
            Self::Unattended(_) => EXIT_UNATTENDED.into(),
            Self::Client(
                ClientError::Unreachable { .. }
                | ClientError::NoAnswer { .. }
                | ClientError::Unintelligible { .. },
            ) => EXIT_UNREACHABLE.into(),
        }
    }
}

/// Runs `lbctl` with the words of the command line.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Failure::Output)
        .and_then(|runtime| runtime.block_on(commands::run(args, &mut io::stdout())));
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    let code = failure.exit_code();
    if code != ExitCode::SUCCESS {
        // With standard error gone there is nobody left to tell; the exit code remains.
        let _unheard = writeln!(io::stderr(), "lbctl: {failure}");
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::ErrorBody;

    #[test]
    fn what_may_have_been_done_all_the_same_is_no_refusal() {
        for (code, expected) in [
            ("conflict", EXIT_REFUSED),
            ("failover_refused", EXIT_REFUSED),
            ("timed_out", EXIT_UNREACHABLE),
            ("vrrp_unavailable", EXIT_REFUSED),
            ("vrrp_unanswered", EXIT_UNREACHABLE),
        ] {
            let body = ErrorBody {
                code: code.to_owned(),
                message: String::new(),
                field: None,
            };
            let failure = Failure::Client(ClientError::Refused(body));
            assert_eq!(failure.exit_code(), expected.into(), "{code}");
        }
    }
}
