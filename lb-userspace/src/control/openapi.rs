use utoipa::OpenApi;

use super::proto::{Changed, Refusal};
use super::{datapath, routes};

/// The OpenAPI document, at `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "lbd",
        description = "The control API of the load balancer, over its unix socket. Errors have \
                       the form {\"error\": {\"code\", \"message\", \"field\"}}.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "http://lbd", description = "Over the unix socket; any host name will do")),
    paths(
        routes::status,
        routes::stats,
        routes::list_services,
        routes::add_service,
        routes::show_service,
        routes::remove_service,
        routes::list_backends,
        routes::add_backend,
        routes::show_backend,
        routes::set_backend,
        routes::remove_backend,
        routes::lives::show_admin,
        routes::lives::set_admin,
        routes::health::health,
        routes::health::events,
        routes::lives::show_health,
        routes::lives::set_health,
        routes::lives::show_ring,
        routes::lives::list_flows,
        routes::pair::vips,
        routes::pair::failover,
        routes::pair::peers,
        routes::plan::plan,
        routes::plan::config_diff,
        datapath::detach
    ),
    components(schemas(Changed, Refusal))
)]
pub(super) struct Document;
