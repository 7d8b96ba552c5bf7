//! `lbctl health` and `lbctl events`.

use std::io::Write;

use super::Failure;
use super::args::{EventsArgs, HealthCommand, HealthSet, Output};
use super::commands::{Sink, backend_path};
use super::health_tables;
use crate::control::client::{Client, segment};
use crate::control::proto::{Changed, Events, HealthChange, HealthReport};

/// How long the daemon keeps a question for the next event.
const WAIT_S: u32 = 20;

/// `lbctl health`.
pub(super) async fn health<W: Write>(
    client: &Client,
    command: HealthCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        HealthCommand::List { service } => {
            let report: HealthReport = client.get(&path(None, service.as_deref())).await?;
            sink.put(&report, health_tables::list)
        }
        HealthCommand::Show { backend, service } => {
            let path = path(Some(&backend), service.as_deref());
            let report: HealthReport = client.get(&path).await?;
            if report.backends.is_empty() {
                return Err(Failure::NoChecks { backend });
            }
            sink.put(&report, health_tables::show)
        }
        HealthCommand::Set(HealthSet { backend, state }) => {
            let path = format!("{}/health", backend_path(&backend));
            let done = format!(
                "backend {} of {}: {state}",
                backend.backend, backend.service
            );
            let changed: Changed = client.put(&path, &HealthChange { state }).await?;
            sink.put_changed(&changed, &done)
        }
    }
}

fn path(backend: Option<&str>, service: Option<&str>) -> String {
    let mut path = "/v1/health".to_owned();
    let mut separator = '?';
    for (key, name) in [("service", service), ("backend", backend)] {
        if let Some(name) = name {
            path.push_str(&format!("{separator}{key}={}", segment(name)));
            separator = '&';
        }
    }
    path
}

/// `lbctl events`: what is remembered, then what happens. As JSON, an event a line.
pub(super) async fn events<W: Write>(
    client: &Client,
    args: &EventsArgs,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let mut after = 0;
    let mut wait_s = 0;
    loop {
        let path = format!("/v1/events?after={after}&wait_s={wait_s}");
        let answer: Events = client.get(&path).await?;
        for event in &answer.events {
            after = event.sequence;
            match sink.output {
                Output::Json => serde_json::to_writer(&mut sink.out, event)?,
                Output::Table => write!(sink.out, "{}", health_tables::event(event))?,
            }
            sink.out.write_all(b"\n")?;
        }
        sink.out.flush()?;
        if !args.follow {
            return Ok(());
        }
        wait_s = WAIT_S;
    }
}
