//! `lbctl plan` and `lbctl config diff`: what a change would do.

use std::io::Write;
use std::path::Path;

use super::Failure;
use super::args::{
    ConfigCommand, HealthSet, PlanBackend, PlanCommand, PlanHealth, PlanService, TakeOut,
};
use super::commands::{Sink, new_backend, new_service};
use super::grid::Align::{Left, Right};
use super::grid::Grid;
use super::units::percent;
use crate::config::{self, Look, Overrides};
use crate::control::client::Client;
use crate::control::proto::{Breakage, ConfigFile, Plan, PlanRequest, ServicePlan};

/// `lbctl plan`.
pub(super) async fn plan<W: Write>(
    client: &Client,
    command: PlanCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let plan: Plan = client.post("/v1/plan", &request(command)).await?;
    sink.put(&plan, table)
}

fn request(command: PlanCommand) -> PlanRequest {
    match command {
        PlanCommand::Service(PlanService::Add(add)) => PlanRequest::AddService {
            service: new_service(*add),
        },
        PlanCommand::Service(PlanService::Remove { name }) => {
            PlanRequest::RemoveService { service: name }
        }
        PlanCommand::Health(PlanHealth::Set(HealthSet { backend, state })) => {
            PlanRequest::SetHealth {
                service: backend.service,
                backend: backend.backend,
                state,
            }
        }
        PlanCommand::Backend(command) => of_backend(command),
    }
}

fn of_backend(command: PlanBackend) -> PlanRequest {
    match command {
        PlanBackend::Add(add) => {
            let (service, backend) = new_backend(add);
            PlanRequest::AddBackend { service, backend }
        }
        PlanBackend::Set { backend, weight } | PlanBackend::Weight { backend, weight } => {
            PlanRequest::SetWeight {
                service: backend.service,
                backend: backend.backend,
                weight: i64::from(weight),
            }
        }
        PlanBackend::Drain(take_out) => set_admin("drain", take_out),
        PlanBackend::Maint(take_out) => set_admin("maint", take_out),
        PlanBackend::Ready(backend) => set_admin(
            "ready",
            TakeOut {
                backend,
                strict: false,
            },
        ),
        PlanBackend::Remove(backend) => PlanRequest::RemoveBackend {
            service: backend.service,
            backend: backend.backend,
        },
    }
}

fn set_admin(state: &str, take_out: TakeOut) -> PlanRequest {
    PlanRequest::SetAdmin {
        service: take_out.backend.service,
        backend: take_out.backend.backend,
        state: state.to_owned(),
        strict: take_out.strict,
    }
}

/// `lbctl config diff`.
pub(super) async fn config<W: Write>(
    client: &Client,
    command: ConfigCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    let ConfigCommand::Diff { file } = command;
    let text = read(&file)?;
    let name = file.display().to_string();
    let plan: Plan = client
        .post("/v1/config/diff", &ConfigFile { name, text })
        .await?;
    sink.put(&plan, table)
}

/// Reads a config file that has no mistakes: they are told here, where there is room to draw them.
fn read(file: &Path) -> Result<String, Failure> {
    let overrides = Overrides {
        interfaces: Vec::new(),
        node: "lb".to_owned(),
    };
    if let Err(report) = config::load(Some(file), &overrides) {
        return Err(Failure::Config(report.render(Look::for_stderr())));
    }
    std::fs::read_to_string(file)
        .map_err(|error| Failure::Config(format!("cannot read {}: {error}", file.display())))
}

/// A plan for people.
fn table(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text.push_str(&format!("{change}\n"));
    }
    if plan.services.is_empty() && plan.restart.is_empty() {
        text.push_str("no flow, slot or policy of any service would be different\n");
    }
    for service in &plan.services {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&of_service(service));
    }
    if !plan.restart.is_empty() {
        let keys = plan.restart.join(", ");
        text.push_str(&format!(
            "\na reload would be refused: a restart of lbd is needed for {keys}\n"
        ));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn of_service(plan: &ServicePlan) -> String {
    let mut text = match plan.moved_slots {
        Some(moved) => format!(
            "service {}: {moved} of {} slots move ({})\n",
            plan.service,
            plan.slots,
            percent(share(moved, plan.slots))
        ),
        None => format!("service {}: {} slots then\n", plan.service, plan.slots),
    };
    if !plan.backends.is_empty() {
        text.push_str(&slots(plan));
    }
    if plan.moved_slots.is_some() {
        let affected = plan.affected_flows;
        text.push_str(&format!("flows on record in slots that move: {affected}\n"));
    }
    text.push_str(&breakages(&plan.breakages));
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn share(part: u32, whole: u32) -> f64 {
    match whole {
        0 => 0.0,
        whole => f64::from(part) / f64::from(whole),
    }
}

fn slots(plan: &ServicePlan) -> String {
    let mut grid = Grid::new(&[
        ("BACKEND", Left),
        ("SLOTS", Right),
        ("SHARE", Right),
        ("SLOTS THEN", Right),
        ("SHARE THEN", Right),
    ]);
    let before: u32 = plan.backends.iter().map(|one| one.slots_before).sum();
    for one in &plan.backends {
        grid.row([
            one.name.clone(),
            one.slots_before.to_string(),
            percent(share(one.slots_before, before)),
            one.slots_after.to_string(),
            percent(share(one.slots_after, plan.slots)),
        ]);
    }
    grid.draw()
}

fn breakages(breakages: &[Breakage]) -> String {
    if breakages.is_empty() {
        return "flows that would break: 0\n".to_owned();
    }
    let mut text = String::new();
    for one in breakages {
        let whose = match &one.backend {
            Some(backend) => format!("all of {backend}"),
            None => "any of the service".to_owned(),
        };
        let count = match (one.is_complete, one.known_flows) {
            (true, known) => known.to_string(),
            (false, known) => format!("{known} on record, and those that are on none"),
        };
        let reason = &one.reason;
        text.push_str(&format!(
            "flows that would break: {whose} ({count}): {reason}\n"
        ));
    }
    text
}
