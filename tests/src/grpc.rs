//! A gRPC server with a health service.

use anyhow::Result;

use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where it listens.
pub const PORT: u16 = 50051;
/// The service that it has.
pub const SERVICE: &str = "shop.Orders";
/// Debian's own Python, which finds Debian's gRPC.
pub const PYTHON: &str = "/usr/bin/python3";
/// The library that it takes.
pub const LIBRARY: &str = "/usr/lib/python3/dist-packages/grpc/__init__.py";

const SERVER: &str = include_str!("apps/health_server.py");

/// Starts one in `netns`. Modes: `slow`, `not serving`, `forgetful` (it knows no such service), `bare` (it
/// has no health service), `overloaded`.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("grpc-{name}"))?;
    let server = scratch.write("health_server.py", SERVER)?;
    let recipe = Recipe {
        command: vec![
            PYTHON.to_owned(),
            server.display().to_string(),
            PORT.to_string(),
        ],
        port: PORT,
    };
    Program::start(&format!("grpc {name}"), netns, scratch, recipe)
}
