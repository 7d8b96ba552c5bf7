//! The daemon: from its command line to its end.

mod args;
mod hints;
mod nodes;
mod reload;
mod run;

use std::io::{self, IsTerminal, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::anyhow;
use clap::Parser;
use nix::net::if_::if_nameindex;
use tracing_subscriber::EnvFilter;

use self::args::{Args, LogFormat};
use self::reload::Origin;
use self::run::Ending;
use crate::config::{self, Loaded, Look, Overrides, Report};
use crate::engine;
use crate::model::Model;

/// Runs `lbd` with the words of the command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.detach {
        return detach(&args);
    }
    let overrides = Overrides {
        interfaces: args.iface.clone(),
        node: node_name(),
    };
    let loaded = match config::load(args.config.as_deref(), &overrides) {
        Ok(loaded) => loaded,
        Err(report) => return refuse(&args, &report),
    };
    if args.check {
        return check(&args, &loaded);
    }
    start_log(&args);
    loaded
        .warnings
        .lines()
        .for_each(|line| tracing::warn!("{line}"));
    let origin = Origin {
        file: args.config.clone(),
        overrides,
        model: loaded.model,
    };
    let ended = require_interface(&origin.model).and_then(|()| run::run(&args, origin));
    match ended {
        Ok(Ending::Stopped) => ExitCode::SUCCESS,
        Ok(Ending::Anew) => fail(&args, &begin_again()),
        Err(error) => fail(&args, &error),
    }
}

/// The same process, from its beginning; returns only what stands in the way.
fn begin_again() -> anyhow::Error {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let error = Command::new("/proc/self/exe").arg0(name).args(words).exec();
    anyhow::Error::from(error).context("lbd cannot begin again")
}

/// `--detach`.
fn detach(args: &Args) -> ExitCode {
    start_log(args);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let detached = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(engine::detach(&args.socket)));
    match detached {
        Ok(detached) => {
            match args.log_format {
                LogFormat::Text => say(&detached.to_string()),
                LogFormat::Json => tracing::info!("{detached}"),
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(args, &error),
    }
}

/// The reason why lbd ends. The log has been started.
fn fail(args: &Args, error: &anyhow::Error) -> ExitCode {
    match args.log_format {
        LogFormat::Text => say(&format!("error: {error:#}")),
        LogFormat::Json => tracing::error!("{error:#}"),
    }
    ExitCode::FAILURE
}

/// `--check`, of a file without errors.
fn check(args: &Args, loaded: &Loaded) -> ExitCode {
    if !loaded.warnings.is_empty() {
        say(&loaded.warnings.render(Look::for_stderr()));
    }
    let model = &loaded.model;
    if model.interfaces.is_empty() {
        say("note: it names no [[interface]]; lbd will need --iface");
    }
    let file = args.config.as_deref().unwrap_or(Path::new(""));
    let backends = model
        .services
        .values()
        .map(|service| service.backends.len());
    let text = format!(
        "{}: ok, {}, {}\n",
        file.display(),
        counted(model.services.len(), "service"),
        counted(backends.sum(), "backend")
    );
    match io::stdout().write_all(text.as_bytes()) {
        // The answer is the exit code; a reader that has gone away does not change it.
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// A file with errors: shown to people, with its lines and carets, unless it is for the log.
fn refuse(args: &Args, report: &Report) -> ExitCode {
    let count = counted(report.error_count(), "error");
    if args.log_format == LogFormat::Json && !args.check {
        start_log(args);
        report.lines().for_each(|line| tracing::error!("{line}"));
        tracing::error!(file = report.file(), "{count}");
    } else {
        say(&report.render(Look::for_stderr()));
        say(&format!("{}: {count}", report.file()));
    }
    ExitCode::FAILURE
}

/// `1 error`, `2 errors`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Writes a line to standard error; where that is closed, there is nobody to tell.
fn say(text: &str) {
    let _unheard = writeln!(io::stderr(), "{text}");
}

fn start_log(args: &Args) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&args.log))
        .with_writer(io::stderr)
        .with_target(false);
    match args.log_format {
        LogFormat::Text => {
            let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_ansi(is_coloured).init();
        }
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
    }
}

fn require_interface(model: &Model) -> anyhow::Result<()> {
    if !model.interfaces.is_empty() {
        return Ok(());
    }
    let names = match if_nameindex() {
        Ok(interfaces) => interfaces
            .iter()
            .map(|interface| interface.name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(", "),
        Err(errno) => format!("unknown ({errno})"),
    };
    Err(anyhow!(
        "no interface: give `--iface NAME`, or an [[interface]] in the config file; those here \
         are {names}"
    ))
}

/// The host's name up to its first dot, where it can be a node's name.
fn node_name() -> String {
    let names = nix::sys::utsname::uname().ok();
    let host = names.as_ref().and_then(|names| names.nodename().to_str());
    let short = host.and_then(|name| name.split('.').next());
    let is_plain = |name: &&str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '-')
            && name.len() <= lb_common::limits::NAME_LEN_MAX
    };
    short.filter(is_plain).unwrap_or("lb").to_owned()
}
