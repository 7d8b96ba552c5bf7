use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::control::SOCKET_DEFAULT;
use crate::model::{Keyword, OnStop};

/// The load balancer's daemon: steers the packets of its services to their backends.
#[derive(Debug, Parser)]
#[command(name = "lbd", version = env!("LB_VERSION"), after_help = SIGNALS)]
pub(super) struct Args {
    /// The config file; without one, lbd starts with no service
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Checks the config file and ends: exit code 0 or 1
    #[arg(long, requires = "config")]
    pub(super) check: bool,

    /// An interface to attach to, in addition to those of the file; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) iface: Vec<String>,

    /// The socket of the API
    #[arg(long, default_value = SOCKET_DEFAULT, value_name = "PATH")]
    pub(super) socket: PathBuf,

    /// What a stop does to the datapath, in the place of the file's `on_stop`: it goes on forwarding
    /// (keep), or is taken off (detach)
    #[arg(long, value_name = "WHAT", value_parser = on_stop)]
    pub(super) on_stop: Option<OnStop>,

    /// Takes a datapath off that goes on without its daemon (VIPs, then the XDP program and its maps),
    /// and ends. Its connections break
    #[arg(long, conflicts_with_all = ["config", "check", "iface"])]
    pub(super) detach: bool,

    /// What to log, such as info, debug or lb_userspace::netlink=debug
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
    /// A JSON object a line, whatever lbd has to say.
    Json,
}

const SIGNALS: &str = "SIGHUP reads the config file again. SIGTERM and SIGINT end lbd; the datapath goes on \
     forwarding, and the next start adopts it, unless `on_stop` is `detach`: then VIPs, program and maps \
     are taken off.";

fn on_stop(text: &str) -> Result<OnStop, String> {
    OnStop::from_word(text).map_err(|error| error.to_string())
}

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
        let args = Args::parse_from("lbd --iface eth0 --iface eth1".split(' '));
        assert_eq!(args.iface, ["eth0", "eth1"]);
        assert_eq!(args.socket.to_str(), Some("/run/lbd/lbd.sock"));
        assert_eq!(args.log_format, LogFormat::Text);
        let args = Args::parse_from("lbd --log-format json".split(' '));
        assert_eq!(args.log_format, LogFormat::Json);
    }

    #[test]
    fn wrong_words_are_wrong_usage() {
        for line in [
            "lbd --check",
            "lbd --log a=b=c",
            "lbd --log-format xml",
            "lbd eth0",
            "lbd --iface",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
