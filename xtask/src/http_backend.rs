//! `cargo xtask http-backend`: the demo's web server where nginx is not installed.

use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use lb_lab::http_backend::HttpBackend;

/// What may follow `cargo xtask http-backend`.
#[derive(Args)]
pub(crate) struct HttpBackendArgs {
    /// The name that it answers with
    #[arg(long)]
    name: String,
    /// The TCP port that it listens on, in both families
    #[arg(long)]
    port: u16,
}

/// `cargo xtask http-backend`
pub(crate) fn task(args: &HttpBackendArgs) -> Result<ExitCode> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
    HttpBackend::bind(&args.name, any)?.serve()?;
    Ok(ExitCode::SUCCESS)
}
