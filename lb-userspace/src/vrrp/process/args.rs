use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Speaks VRRP for lbd, in a process of its own. lbd starts it, tells it what to do, and restarts it; what happens
/// to lbd does not move a VIP.
#[derive(Debug, Parser)]
#[command(name = "lbd-vrrp", version = env!("LB_VERSION"), after_help = SIGNALS)]
pub(super) struct Args {
    /// The socket on which it is told what to do: that of lbd with `.vrrp` behind it
    #[arg(long, default_value = "/run/lbd/lbd.sock.vrrp", value_name = "PATH")]
    pub(super) socket: PathBuf,

    /// What to log, such as info or debug
    #[arg(long, env = "LBD_LOG", default_value = "info", value_name = "FILTER", value_parser = filter)]
    pub(super) log: String,

    /// How to log: text for people, or a JSON object a line for programs
    #[arg(
        long,
        env = "LBD_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(super) log_format: LogFormat,
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

const SIGNALS: &str = "SIGTERM and SIGINT hand the VIPs over, withdraw them, and end lbd-vrrp. SIGUSR1 ends it and \
     leaves the VIPs to its successor, which has to come within three advertisement intervals.";

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
        let args = Args::parse_from(["lbd-vrrp"]);
        assert_eq!(args.socket.to_str(), Some("/run/lbd/lbd.sock.vrrp"));
        assert_eq!(args.log_format, LogFormat::Text);
        for line in ["lbd-vrrp --log a=b=c", "lbd-vrrp eth0", "lbd-vrrp --socket"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
