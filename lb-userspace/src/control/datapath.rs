//! The path of what outlives the daemon.

use axum::Json;
use axum::extract::State;
use tracing::info;

use super::error::ApiError;
use super::proto::{Changed, Refusal};
use super::routes::pair::Node;

/// Takes the datapath off (VIPs, which go to a peer where one can have them, then the XDP program and its maps) and ends lbd. Connections break.
#[utoipa::path(
    post,
    path = "/v1/datapath/detach",
    responses(
        (status = 200, body = Changed),
        (status = 500, description = "Something could not be removed", body = Refusal)
    )
)]
pub(super) async fn detach(State(node): State<Node>) -> Result<Json<Changed>, ApiError> {
    info!("API: the datapath is to be taken off");
    // VIPs that move go first, and to a peer if there is one.
    node.monitor.vrrp.stop().await;
    node.engine.detach().await?;
    Ok(Json(Changed {
        name: "datapath".to_owned(),
        warnings: Vec::new(),
    }))
}
