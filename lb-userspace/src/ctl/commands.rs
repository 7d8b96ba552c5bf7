//! One function for each noun: asks the daemon, writes the answer.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use serde::Serialize;

use super::args::{
    Args, BackendAdd, BackendCommand, BackendName, Command, DatapathCommand, Output, ServiceAdd,
    ServiceCommand,
};
use super::{Failure, datapath, health, lives, pair, plan, tables, watch};
use crate::control::client::{Client, segment};
use crate::control::proto::{
    Backend, BackendChange, Backends, Changed, NewBackend, NewService, Service, Services, Stats,
    Status,
};
use crate::engine;

/// Where the answer goes, and in what form.
pub(super) struct Sink<'o, W> {
    pub(super) output: Output,
    pub(super) out: &'o mut W,
}

impl<W: Write> Sink<'_, W> {
    /// Writes an answer as JSON, or as `table` draws it.
    pub(super) fn put<T: Serialize>(
        &mut self,
        answer: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Table => self.out.write_all(table(answer).as_bytes())?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut self.out, answer)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Writes that something was done; warnings go to standard error.
    pub(super) fn put_changed(&mut self, changed: &Changed, done: &str) -> Result<(), Failure> {
        self.put(changed, |_| format!("{done}\n"))?;
        if self.output == Output::Table {
            for warning in &changed.warnings {
                writeln!(std::io::stderr(), "warning: {warning}")?;
            }
        }
        Ok(())
    }
}

/// Runs a command.
pub(super) async fn run<W: Write>(args: Args, out: &mut W) -> Result<(), Failure> {
    let client = Client::new(&args.socket);
    let mut sink = Sink {
        output: args.output,
        out,
    };
    match args.command {
        Command::Service(command) => service(&client, command, &mut sink).await,
        Command::Backend(command) => backend(&client, command, &mut sink).await,
        Command::Health(command) => health::health(&client, command, &mut sink).await,
        Command::Events(args) => health::events(&client, &args, &mut sink).await,
        Command::Flow(command) => lives::flow(&client, command, &mut sink).await,
        Command::Ring(command) => lives::ring(&client, command, &mut sink).await,
        Command::Plan(command) => plan::plan(&client, command, &mut sink).await,
        Command::Config(command) => plan::config(&client, command, &mut sink).await,
        Command::Vip(command) => pair::vip(&client, command, &mut sink).await,
        Command::Peer(command) => pair::peer(&client, command, &mut sink).await,
        Command::Status => match client.get::<Status>("/v1/status").await {
            Ok(status) => sink.put(&status, tables::status),
            Err(error) => {
                sink.put(&datapath::pinned(&args.socket, error)?, datapath::table)?;
                Err(Failure::Unattended(args.socket))
            }
        },
        Command::Datapath(DatapathCommand::Detach) => {
            detach(&client, &args.socket, &mut sink).await
        }
        Command::Stats(stats) if stats.watch => watch::run(&client, &stats, &mut sink).await,
        Command::Stats(_) => {
            let stats: Stats = client.get("/v1/stats").await?;
            sink.put(&stats, tables::stats)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "lbctl", &mut script);
            Ok(sink.out.write_all(&script)?)
        }
    }
}

/// By the daemon, or in its place.
async fn detach<W: Write>(
    client: &Client,
    socket: &Path,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match client.post("/v1/datapath/detach", &()).await {
        Ok(changed) => sink.put_changed(&changed, "datapath taken off, and lbd has ended"),
        Err(error) if datapath::is_without_daemon(&error) => {
            let detached = engine::detach(socket).await.map_err(Failure::Detach)?;
            let changed = Changed {
                name: "datapath".to_owned(),
                warnings: Vec::new(),
            };
            sink.put_changed(&changed, &detached.to_string())
        }
        Err(error) => Err(error.into()),
    }
}

async fn service<W: Write>(
    client: &Client,
    command: ServiceCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        ServiceCommand::Add(add) => {
            let changed: Changed = client.post("/v1/services", &new_service(*add)).await?;
            sink.put_changed(&changed, &format!("service {} added", changed.name))
        }
        ServiceCommand::List => {
            let services: Services = client.get("/v1/services").await?;
            sink.put(&services, tables::services)
        }
        ServiceCommand::Show { name } => {
            let service: Service = client.get(&service_path(&name)).await?;
            sink.put(&service, tables::service)
        }
        ServiceCommand::Remove { name } => {
            let changed: Changed = client.delete(&service_path(&name)).await?;
            sink.put_changed(&changed, &format!("service {} removed", changed.name))
        }
    }
}

async fn backend<W: Write>(
    client: &Client,
    command: BackendCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        BackendCommand::Add(add) => {
            let path = format!("{}/backends", service_path(&add.service));
            let (service, new) = new_backend(add);
            let changed: Changed = client.post(&path, &new).await?;
            let done = format!("backend {} added to {service}", changed.name);
            sink.put_changed(&changed, &done)
        }
        BackendCommand::List { service } => {
            let backends = match service {
                Some(name) => {
                    client
                        .get(&format!("{}/backends", service_path(&name)))
                        .await?
                }
                None => all_backends(client).await?,
            };
            sink.put(&backends, tables::backends)
        }
        BackendCommand::Show(name) => {
            let backend: Backend = client.get(&backend_path(&name)).await?;
            sink.put(&backend, tables::backend)
        }
        BackendCommand::Drain(command) => lives::drain(client, command, sink).await,
        BackendCommand::Ready(name) => {
            let change = lives::admin_change("ready", false);
            lives::set_admin(client, &name, &change, sink).await
        }
        BackendCommand::Maint(take_out) => {
            let change = lives::admin_change("maint", take_out.strict);
            lives::set_admin(client, &take_out.backend, &change, sink).await
        }
        BackendCommand::Set { backend, weight } | BackendCommand::Weight { backend, weight } => {
            let change = BackendChange {
                weight: i64::from(weight),
            };
            let changed: Changed = client.patch(&backend_path(&backend), &change).await?;
            let done = format!(
                "backend {} of {}: weight {weight}",
                changed.name, backend.service
            );
            sink.put_changed(&changed, &done)
        }
        BackendCommand::Remove(name) => {
            let changed: Changed = client.delete(&backend_path(&name)).await?;
            let done = format!("backend {} removed from {}", changed.name, name.service);
            sink.put_changed(&changed, &done)
        }
    }
}

async fn all_backends(client: &Client) -> Result<Backends, Failure> {
    let services: Services = client.get("/v1/services").await?;
    let mut all = Backends {
        backends: Vec::new(),
        leaving: Vec::new(),
    };
    for service in services.services {
        all.backends.extend(service.backends);
        all.leaving.extend(service.leaving);
    }
    Ok(all)
}

pub(super) fn service_path(name: &str) -> String {
    format!("/v1/services/{}", segment(name))
}

pub(super) fn backend_path(name: &BackendName) -> String {
    format!(
        "{}/backends/{}",
        service_path(&name.service),
        segment(&name.backend)
    )
}

pub(super) fn new_service(add: ServiceAdd) -> NewService {
    NewService {
        name: add.name,
        vip: add.vip.to_string(),
        port: i64::from(add.port),
        protocol: Some(add.protocol),
        scheduler: Some(add.scheduler),
        forward: Some(add.forward),
        idle_timeout_s: add.idle_timeout,
        ring_slots: add.ring_slots.map(i64::from),
        flow: add.flow,
        slow_start_s: add.slow_start,
        on_down: add.on_down,
        on_remove: add.on_remove,
        on_all_down: add.on_all_down,
        backends: Vec::new(),
    }
}

pub(super) fn new_backend(add: BackendAdd) -> (String, NewBackend) {
    let new = NewBackend {
        address: add.address.to_string(),
        name: add.name,
        port: add.port.map(i64::from),
        weight: add.weight.map(i64::from),
        backup: add.backup.map(i64::from),
    };
    (add.service, new)
}
