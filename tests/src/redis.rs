//! Redis, alone or as the replica of another one.

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::process::run;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where it listens.
pub const PORT: u16 = 6379;
/// Its password, at first.
pub const PASSWORD: &str = "check-me";

/// Starts a primary in `netns`. Nothing is saved.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("redis-{name}"))?;
    let directory = scratch.path().display().to_string();
    let port = PORT.to_string();
    let arguments = [
        "redis-server",
        "--bind",
        "*",
        "--port",
        &port,
        "--protected-mode",
        "no",
        "--requirepass",
        PASSWORD,
        "--masterauth",
        PASSWORD,
        "--dir",
        &directory,
        "--save",
        "",
        "--repl-ping-replica-period",
        "1",
        "--repl-diskless-sync-delay",
        "0",
    ];
    let recipe = Recipe {
        command: arguments.map(str::to_owned).into(),
        port: PORT,
    };
    Program::start(&format!("redis {name}"), netns, scratch, recipe)
}

/// Gives a command to the server in `netns`, on the machine itself.
pub fn tell(netns: &Netns, password: &str, words: &[&str]) -> Result<String> {
    let mut client = netns.command("redis-cli");
    client.env("REDISCLI_AUTH", password).args(["-e", "-p"]);
    client.arg(PORT.to_string()).args(words);
    run(&mut client).with_context(|| format!("Redis does not take {words:?}"))
}
