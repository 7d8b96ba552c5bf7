//! A small web server for Node, and an agent beside it.

use anyhow::Result;

use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where the web server listens, over IPv4 and IPv6.
pub const PORT: u16 = 3000;
/// Where its agent does.
pub const AGENT_PORT: u16 = 3001;
/// What the agent says.
pub const AGENT_FILE: &str = "agent";

const SERVER: &str = include_str!("apps/server.js");

/// Starts Node in `netns`. `/` says `ready`, and the agent `up ready 100%`. Modes: `slow`, `broken` (500),
/// `starting`, `stuck` (in the middle of an answer), `resetting`, `closing`, `rambling` (no HTTP).
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("node-{name}"))?;
    let server = scratch.write("server.js", SERVER)?;
    scratch.write(AGENT_FILE, "up ready 100%")?;
    let recipe = Recipe {
        command: vec![
            "node".to_owned(),
            server.display().to_string(),
            PORT.to_string(),
            AGENT_PORT.to_string(),
        ],
        port: PORT,
    };
    Program::start(&format!("node {name}"), netns, scratch, recipe)
}
