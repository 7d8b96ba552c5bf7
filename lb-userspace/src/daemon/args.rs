use std::path::PathBuf;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::control::SOCKET_DEFAULT;

/// The load balancer's daemon: steers the packets of its services to their backends.
#[derive(Debug, Parser)]
#[command(name = "lbd", version, after_help = SIGNALS)]
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

    /// What to log, such as info, debug or lb_userspace::netlink=debug
    #[arg(long, env = "LBD_LOG", default_value = "info", value_name = "FILTER", value_parser = filter)]
    pub(super) log: String,
}

const SIGNALS: &str = "SIGHUP reads the config file again. SIGTERM and SIGINT take everything down: VIPs first, then the XDP program.";

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
    }

    #[test]
    fn wrong_words_are_wrong_usage() {
        for line in ["lbd --check", "lbd --log a=b=c", "lbd eth0", "lbd --iface"] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
