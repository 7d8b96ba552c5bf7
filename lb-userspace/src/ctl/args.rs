//! The words of the command line.

mod lives;
mod pair;
mod plan;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};

use crate::control::SOCKET_DEFAULT;
use crate::model::{
    ForwardMode, Keyword, OnAllDown, OnDown, OnRemove, Protocol, Scheduler, UdpFlow, text,
};

pub(super) use lives::{
    Drain, EventsArgs, FlowCommand, FlowsOf, HealthCommand, HealthSet, RingCommand, TakeOut,
};
pub(super) use pair::{PeerCommand, VipCommand};
pub(super) use plan::{ConfigCommand, PlanBackend, PlanCommand, PlanHealth, PlanService};

/// Controls lbd, the load balancer's daemon.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version = env!("LB_VERSION"), after_help = EXIT_CODES)]
pub(super) struct Args {
    /// A table for people, or JSON with stable keys for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        display_order = 100
    )]
    pub(super) output: Output,

    /// The daemon's socket
    #[arg(long, global = true, env = "LBCTL_SOCKET", default_value = SOCKET_DEFAULT, value_name = "PATH", display_order = 101)]
    pub(super) socket: PathBuf,

    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused by the daemon, 2 wrong usage, 3 daemon not \
                          reachable, or not heard in time (it may have done it all the same); of `drain --wait`: 4 flows are left, 5 none is known but some may be left; of \
                          `status`: 6 no daemon, and a datapath that goes on without one";

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Virtual IPs and what is behind them
    #[command(subcommand)]
    Service(ServiceCommand),
    /// The machines behind a service
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Whether backends answer
    #[command(subcommand)]
    Health(HealthCommand),
    /// What has happened: changes of health, VIPs that came or went, peers, alarms
    Events(EventsArgs),
    /// Flows on record
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Rings: which slots belong to which backend
    #[command(subcommand)]
    Ring(RingCommand),
    /// Tells what a change would do, and makes none
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Config files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// VIPs that move between nodes
    #[command(subcommand)]
    Vip(VipCommand),
    /// The other nodes
    #[command(subcommand)]
    Peer(PeerCommand),
    /// The node: interfaces, maps, drops
    Status,
    /// What goes on without lbd: the XDP program, its maps, the VIPs
    #[command(subcommand)]
    Datapath(DatapathCommand),
    /// Counters of services and backends
    Stats(StatsArgs),
    /// Prints a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DatapathCommand {
    /// Takes everything off (VIPs, then the XDP program and its maps) and ends lbd: connections break.
    /// Works without a running lbd too
    Detach,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Adds a service
    Add(Box<ServiceAdd>),
    /// Lists the services
    List,
    /// Shows a service and its backends
    Show {
        /// The service's name
        name: String,
    },
    /// Removes a service and its backends
    Remove {
        /// The service's name
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ServiceAdd {
    /// Its name: 1 to 63 of A-Z a-z 0-9 . _ -
    pub(super) name: String,
    /// The virtual address, IPv4 or IPv6
    #[arg(long, value_name = "ADDRESS", value_parser = text::address)]
    pub(super) vip: IpAddr,
    /// The port; 0 = every port
    #[arg(long)]
    pub(super) port: u16,
    /// The transport protocol
    #[arg(long, default_value = Protocol::Tcp.word(), value_parser = words::<Protocol>())]
    pub(super) protocol: String,
    /// How new flows are spread
    #[arg(long, default_value = Scheduler::Maglev.word(), value_parser = words::<Scheduler>())]
    pub(super) scheduler: String,
    /// How packets get to the backends
    #[arg(long, default_value = ForwardMode::Dsr.word(), value_parser = words::<ForwardMode>())]
    pub(super) forward: String,
    /// How long a silent flow is remembered, such as 90s, 15m or 2h [default: 15m for tcp, 60s for udp]
    #[arg(long, value_name = "TIME", value_parser = text::duration_s)]
    pub(super) idle_timeout: Option<i64>,
    /// Slots of a Maglev ring: 16381 or 65521 [default: 16381]
    #[arg(long, value_name = "SLOTS")]
    pub(super) ring_slots: Option<u32>,
    /// Where UDP flows go when the ring changes; udp only [default: pinned]
    #[arg(long, value_parser = words::<UdpFlow>())]
    pub(super) flow: Option<String>,
    /// How long a backend's weight takes to grow to its full size when it comes back, such as 30s
    /// [default: 0s, off]
    #[arg(long, value_name = "TIME", value_parser = text::duration_s)]
    pub(super) slow_start: Option<i64>,
    /// What becomes of the flows of a backend that is down [default: keep]
    #[arg(long, value_parser = words::<OnDown>())]
    pub(super) on_down: Option<String>,
    /// What becomes of the flows of a backend that is removed or in maintenance [default: keep]
    #[arg(long, value_parser = words::<OnRemove>())]
    pub(super) on_remove: Option<String>,
    /// What becomes of new flows while no backend can take any [default: last_good]
    #[arg(long, value_parser = words::<OnAllDown>())]
    pub(super) on_all_down: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Adds a backend to a service
    Add(BackendAdd),
    /// Lists the backends, of one service or of all
    List {
        /// The service's name
        service: Option<String>,
    },
    /// Shows a backend
    Show(BackendName),
    /// Changes a backend
    Set {
        #[command(flatten)]
        backend: BackendName,
        /// The new weight, 1 to 1000
        #[arg(long)]
        weight: u32,
    },
    /// Changes a backend's weight
    Weight {
        #[command(flatten)]
        backend: BackendName,
        /// The new weight, 1 to 1000
        weight: u32,
    },
    /// Gives a backend no new flows; those that it has are kept
    Drain(Drain),
    /// Puts a backend back into service
    Ready(BackendName),
    /// Gives a backend no new flows, and ends those that it has as on_remove says
    Maint(TakeOut),
    /// Removes a backend
    Remove(BackendName),
}

#[derive(Debug, clap::Args)]
pub(super) struct BackendAdd {
    /// The service's name
    pub(super) service: String,
    /// The backend's address
    #[arg(value_parser = text::address)]
    pub(super) address: IpAddr,
    /// Its port; may differ from the service's with nat only [default: the service's]
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Its weight, 1 to 1000 [default: 100]
    #[arg(long)]
    pub(super) weight: Option<u32>,
    /// Its group: 1 to 9 = it gets new flows only while nobody of a lower group can [default: 0]
    #[arg(long, value_name = "GROUP")]
    pub(super) backup: Option<u32>,
    /// Its name [default: its address, and its port if it is not the service's]
    #[arg(long)]
    pub(super) name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct BackendName {
    /// The service's name
    pub(super) service: String,
    /// The backend's name
    pub(super) backend: String,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatsArgs {
    /// Shows rates, again and again until stopped
    #[arg(long)]
    pub(super) watch: bool,
    /// Seconds between two samples, 0.1 to 3600
    #[arg(long, requires = "watch", default_value = "1", value_name = "SECONDS", value_parser = interval)]
    pub(super) interval: Duration,
    /// Ends after this many samples
    #[arg(long, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
}

fn words<K: Keyword>() -> PossibleValuesParser {
    PossibleValuesParser::new(K::ALL.iter().map(|(_, word)| *word))
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "write a number, such as 1 or 0.5".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is 0.1 to 3600 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
        let _: Args = Args::parse_from(["lbctl", "status"]);
    }

    #[test]
    fn defaults_are_those_of_the_config_file() {
        let line = "lbctl service add web --vip 203.0.113.10 --port 80";
        let args = Args::parse_from(line.split(' '));
        let Command::Service(ServiceCommand::Add(add)) = args.command else {
            panic!("{:?}", args.command);
        };
        assert_eq!(
            (
                add.protocol.as_str(),
                add.scheduler.as_str(),
                add.forward.as_str()
            ),
            ("tcp", "maglev", "dsr")
        );
        assert_eq!(args.output, Output::Table);
    }

    #[test]
    fn wrong_words_are_wrong_usage() {
        for line in [
            "lbctl service add web --vip 203.0.113.10/32 --port 80",
            "lbctl service add web --vip 203.0.113.10 --port 80 --scheduler random",
            "lbctl service add web --vip 203.0.113.10 --port 65536",
            "lbctl service add web --port 80",
            "lbctl stats --count 3",
            "lbctl stats --watch --interval 0",
            "lbctl stats --watch --count 0",
            "lbctl backend set web web1",
            "lbctl",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
