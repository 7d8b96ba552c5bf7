//! Commands about backends' lives, flows and rings.

use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Failure;
use super::args::{BackendName, Drain, FlowCommand, FlowsOf, Output, RingCommand};
use super::commands::{Sink, backend_path, service_path};
use super::lives_tables;
use crate::control::client::{Client, segment};
use crate::control::proto::{Admin, AdminChange, Changed, Flows, Ring};

/// How often a drained backend is looked at: nothing tells a client that its flows have ended.
const POLL: Duration = Duration::from_millis(500);

/// `lbctl backend drain`.
pub(super) async fn drain<W: Write>(
    client: &Client,
    command: Drain,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let take_out = command.take_out;
    let change = admin_change("drain", take_out.strict);
    match command.wait {
        None => set_admin(client, &take_out.backend, &change, sink).await,
        Some(patience_s) => {
            let path = admin_path(&take_out.backend);
            let changed: Changed = client.put(&path, &change).await?;
            // As JSON there is one answer: what was found in the end.
            if sink.output == Output::Table {
                sink.put_changed(&changed, &done(&take_out.backend, &change))?;
            }
            let patience = Duration::from_secs(u64::try_from(patience_s).unwrap_or(0));
            wait(client, &take_out.backend, patience, sink).await
        }
    }
}

/// Changes the admin state of a backend.
pub(super) async fn set_admin<W: Write>(
    client: &Client,
    backend: &BackendName,
    change: &AdminChange,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let changed: Changed = client.put(&admin_path(backend), change).await?;
    sink.put_changed(&changed, &done(backend, change))
}

pub(super) fn admin_change(state: &str, strict: bool) -> AdminChange {
    AdminChange {
        state: state.to_owned(),
        strict,
    }
}

fn admin_path(backend: &BackendName) -> String {
    format!("{}/admin", backend_path(backend))
}

fn done(backend: &BackendName, change: &AdminChange) -> String {
    let BackendName { service, backend } = backend;
    format!("backend {backend} of {service}: {}", change.state)
}

/// Waits until a drained backend has no flow left. Whoever makes it ready again in the meantime ends
/// the wait.
async fn wait<W: Write>(
    client: &Client,
    backend: &BackendName,
    patience: Duration,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let mut told = None;
    loop {
        let admin: Admin = client.get(&admin_path(backend)).await?;
        let left = total(&admin);
        let is_over = admin.is_empty || admin.state == "ready" || Instant::now() >= deadline;
        if is_over {
            sink.put(&admin, |admin| lives_tables::drained(backend, admin))?;
            return outcome(backend, &admin, patience);
        }
        if sink.output == Output::Table && told != Some(left) {
            writeln!(std::io::stderr(), "{}", lives_tables::left(&admin))?;
            told = Some(left);
        }
        sleep(POLL.min(deadline - Instant::now())).await;
    }
}

fn total(admin: &Admin) -> u64 {
    lives_tables::total(&admin.flows)
}

fn outcome(backend: &BackendName, admin: &Admin, patience: Duration) -> Result<(), Failure> {
    if admin.is_empty {
        return Ok(());
    }
    let BackendName { service, backend } = backend;
    let subject = format!("backend {backend} of {service}");
    if admin.state == "ready" {
        return Err(Failure::Readied { subject });
    }
    let waited = format!("{subject}, after {} s", patience.as_secs());
    Err(match total(admin) {
        0 if admin.slots > 0 => Failure::StillServing {
            waited,
            slots: admin.slots,
        },
        0 => Failure::Uncertain {
            waited,
            certain_in_s: admin.certain_in_s.unwrap_or(0),
        },
        flows => Failure::FlowsLeft { waited, flows },
    })
}

/// `lbctl flow`.
pub(super) async fn flow<W: Write>(
    client: &Client,
    command: FlowCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        FlowCommand::List { whose, limit } => {
            let flows: Flows = client.get(&flows_path(&whose, limit)).await?;
            sink.put(&flows, lives_tables::flows)
        }
        FlowCommand::Count(whose) => {
            let flows: Flows = client.get(&flows_path(&whose, 0)).await?;
            sink.put(&flows, lives_tables::flow_counts)
        }
    }
}

fn flows_path(whose: &FlowsOf, limit: u32) -> String {
    let mut path = format!("/v1/flows?limit={limit}");
    for (key, name) in [("service", &whose.service), ("backend", &whose.backend)] {
        if let Some(name) = name {
            path.push_str(&format!("&{key}={}", segment(name)));
        }
    }
    path
}

/// `lbctl ring`.
pub(super) async fn ring<W: Write>(
    client: &Client,
    command: RingCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let RingCommand::Show { service } = command;
    let ring: Ring = client
        .get(&format!("{}/ring", service_path(&service)))
        .await?;
    sink.put(&ring, lives_tables::ring)
}
