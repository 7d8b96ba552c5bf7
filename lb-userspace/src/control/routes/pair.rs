//! VIPs that move, and the nodes that they move between.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tracing::{info, warn};

use super::Answer;
use crate::control::Monitor;
use crate::control::body::Names;
use crate::control::error::ApiError;
use crate::control::proto::{FailoverDone, Peers, Refusal, VRRP_UNANSWERED, Vips};
use crate::control::view;
use crate::control::vrrp::FailoverError;
use crate::engine::EngineHandle;
use crate::model::cluster::VrrpGroup;
use crate::suggest::closest;
use crate::vrrp::protocol;

/// The code of a hand-over for which there is no `lbd-vrrp`.
const VRRP_UNAVAILABLE: &str = "vrrp_unavailable";

/// What the answers are made from.
#[derive(Clone, Debug)]
pub(in crate::control) struct Node {
    pub(in crate::control) engine: EngineHandle,
    pub(in crate::control) monitor: Monitor,
}

/// The VIPs that move between nodes: who has them, since when and why.
#[utoipa::path(get, path = "/v1/vips", responses((status = 200, body = Vips)))]
pub(in crate::control) async fn vips(State(node): State<Node>) -> Answer<Vips> {
    let snapshot = node.engine.snapshot().await?;
    let status = node.monitor.vrrp.status();
    let peers = node.monitor.peers.view();
    Ok(Json(view::vips(&snapshot, status.as_ref(), &peers)))
}

/// Hands a group's VIPs over to a peer, and waits for the outcome.
#[utoipa::path(
    post,
    path = "/v1/vips/{group}/failover",
    params(("group" = String, Path, description = "The group's name")),
    responses(
        (status = 200, body = FailoverDone),
        (status = 404, description = "There is no such group", body = Refusal),
        (status = 409, description = "This node has not got the VIPs, or nobody can take them", body = Refusal),
        (status = 503, description = "lbd-vrrp does not answer", body = Refusal)
    )
)]
pub(in crate::control) async fn failover(
    State(node): State<Node>,
    Names(group): Names<String>,
) -> Answer<FailoverDone> {
    let groups = node.engine.snapshot().await?.vrrp;
    require_group(&groups, &group)?;
    require_active(&node, &group)?;
    let begin = Instant::now();
    // A client that hangs up does not keep the outcome out of the log.
    let task = tokio::spawn(async move {
        let outcome = node.monitor.vrrp.failover(&group).await;
        let took_ms = begin.elapsed().as_secs_f64() * 1_000.0;
        match &outcome {
            Ok(text) => info!("vrrp group `{group}`: {text}, in {took_ms:.1} ms (on demand)"),
            Err(error) => warn!("vrrp group `{group}` was not handed over: {error}"),
        }
        outcome.map(|text| FailoverDone {
            group,
            text,
            took_ms,
        })
    });
    let outcome = task.await.map_err(|error| {
        let message = format!("the request was cut off: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
    })?;
    outcome.map(Json).map_err(|error| match error {
        FailoverError::NotRunning | FailoverError::Absent(_) => {
            unavailable(VRRP_UNAVAILABLE, &error)
        }
        FailoverError::Unanswered(_) => unavailable(VRRP_UNANSWERED, &error),
        FailoverError::Failed(_) => refused(error.to_string()),
    })
}

fn require_group(groups: &BTreeMap<String, VrrpGroup>, name: &str) -> Result<(), ApiError> {
    if groups.contains_key(name) {
        return Ok(());
    }
    let hint = match closest(name, groups.keys().map(String::as_str)) {
        Some(known) => format!("; did you mean `{known}`?"),
        None if groups.is_empty() => {
            "; there is none at all: groups are [[vrrp]] in the config file".to_owned()
        }
        None => "; `lbctl vip list` shows those that exist".to_owned(),
    };
    let message = format!("no vrrp group `{name}`{hint}");
    Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message))
}

/// Only who has the VIPs can hand them over.
fn require_active(node: &Node, group: &str) -> Result<(), ApiError> {
    let Some(status) = node.monitor.vrrp.status() else {
        return Err(unavailable(VRRP_UNAVAILABLE, &FailoverError::NotRunning));
    };
    let own = status.routers.iter().filter(|one| one.group == group);
    if own.clone().any(|one| one.state == protocol::State::Active) {
        return Ok(());
    }
    let peers = node.monitor.peers.view();
    let address = own.filter_map(|one| one.active).next();
    let owner = match (view::active_peer(&peers, group, None), address) {
        (Some(peer), _) => format!("{peer} is: `lbctl vip failover {group}` there"),
        (None, Some(address)) => {
            format!("{address} is: `lbctl vip failover {group}` on that node")
        }
        (None, None) => "and nobody else is known to be: `lbctl vip list` tells why".to_owned(),
    };
    let message = format!("vrrp group `{group}` is not Active on this node; {owner}");
    Err(refused(message))
}

fn refused(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "failover_refused", message)
}

fn unavailable(code: &'static str, error: &FailoverError) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
}

/// This node among its peers.
#[utoipa::path(
    get,
    path = "/v1/peers",
    responses(
        (status = 200, body = Peers),
        (status = 404, description = "This node has no peers", body = Refusal)
    )
)]
pub(in crate::control) async fn peers(State(node): State<Node>) -> Answer<Peers> {
    let snapshot = node.engine.snapshot().await?;
    let view = node.monitor.peers.view();
    let peers = view::peers(&snapshot, &node.monitor.vrrp, view);
    peers.map(Json).ok_or_else(|| {
        let message = "this node is on its own: the config file has no [cluster] (with listen, secret_file and a \
                       [[cluster.peer]] for each other node; it takes a restart of lbd, which breaks no connection)";
        ApiError::new(StatusCode::NOT_FOUND, "no_cluster", message)
    })
}
