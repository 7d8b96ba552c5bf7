//! gunicorn with a small WSGI application.

use anyhow::Result;

use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where it listens.
pub const PORT: u16 = 8000;

const APPLICATION: &str = include_str!("apps/app.py");

/// Starts gunicorn in `netns`. `/` says `ready`. Modes: `slow`, `broken` (an exception), `starting`.
///
/// Its workers have threads: a connection over which nothing ever comes occupies one of them for good.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("gunicorn-{name}"))?;
    scratch.write("app.py", APPLICATION)?;
    let bind = format!("0.0.0.0:{PORT}");
    let directory = scratch.path().display().to_string();
    let arguments = [
        "gunicorn",
        "--bind",
        &bind,
        "--workers=2",
        "--worker-class=gthread",
        "--threads=16",
        "--worker-tmp-dir=/dev/shm",
        "--chdir",
        &directory,
        "app:app",
    ];
    let recipe = Recipe {
        command: arguments.map(str::to_owned).into(),
        port: PORT,
    };
    Program::start(&format!("gunicorn {name}"), netns, scratch, recipe)
}
