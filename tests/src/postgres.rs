//! PostgreSQL, alone or as the standby of another one.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::process::{Process, run};
use crate::program::{Program, Recipe};
use crate::requirement::find_program;
use crate::scratch::ScratchDir;
use crate::wait::wait_until;

/// Where it listens.
pub const PORT: u16 = 5432;
/// The user of health checks, and its password.
pub const CHECK_USER: &str = "lbcheck";
/// See [`CHECK_USER`].
pub const CHECK_PASSWORD: &str = "check-me";
/// A query that [`CHECK_USER`] may ask, of the table `health`.
pub const CHECK_QUERY: &str = "SELECT word FROM health";

/// It does not run as root.
const SYSTEM_USER: &str = "postgres";

/// How long it may take until it takes statements.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Who may sign in, and how: everybody on the machine itself, the checks by password, replicas.
const RULES: &str = "\
local all all trust
host all lbcheck all scram-sha-256
host replication postgres all trust
";

/// Starts a primary in `netns`, with the user of the checks and the table that they ask.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = own_directory(name)?;
    let data = data(scratch.path());
    let mut initdb = as_system_user(Command::new("setpriv"), "initdb")?;
    initdb.args(["--username=postgres", "--auth=trust", "--no-sync"]);
    initdb.args(["--encoding=UTF8", "--locale=C", "--pgdata"]);
    run(initdb.arg(&data)).context("cannot make PostgreSQL's files")?;
    let rules = data.join("pg_hba.conf");
    std::fs::write(&rules, RULES).with_context(|| format!("cannot write {}", rules.display()))?;
    let server = launch(name, netns, scratch)?;
    sql(
        &server,
        &format!(
            "CREATE ROLE {CHECK_USER} LOGIN PASSWORD '{CHECK_PASSWORD}';
             CREATE TABLE health AS SELECT 'ready' AS word;
             GRANT SELECT ON health TO {CHECK_USER};"
        ),
    )?;
    Ok(server)
}

/// Starts a standby in `netns` that streams from the primary at `primary`.
pub fn start_standby(name: &str, netns: &Netns, primary: IpAddr) -> Result<Program> {
    let scratch = own_directory(name)?;
    let mut copy = as_system_user(netns.command("setpriv"), "pg_basebackup")?;
    copy.args(["--username=postgres", "--write-recovery-conf"]);
    copy.args(["--checkpoint=fast", "--no-sync"]);
    copy.arg(format!("--host={primary}")).arg("--pgdata");
    run(copy.arg(data(scratch.path()))).context("cannot copy the primary")?;
    launch(name, netns, scratch)
}

/// Runs statements as the superuser; returns what the client wrote, a row a line.
pub fn sql(server: &Program, statements: &str) -> Result<String> {
    run(client(server).args(["--command", statements]))
        .with_context(|| format!("PostgreSQL does not take {statements}"))
}

/// Runs statements in a session that lasts until the process is dropped.
pub fn session(server: &Program, statements: &str) -> Result<Process> {
    let mut client = client(server);
    client.args(["--command", statements]);
    Process::spawn("psql", client, &server.directory().join("session.log"))
}

/// A client on the server's socket.
fn client(server: &Program) -> Command {
    let mut client = Command::new("psql");
    client
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set=ON_ERROR_STOP=1", "--username=postgres", "--host"])
        .arg(server.directory())
        .arg("postgres");
    client
}

fn launch(name: &str, netns: &Netns, scratch: ScratchDir) -> Result<Program> {
    let directory = scratch.path().display().to_string();
    let postgres = program("postgres")?.display().to_string();
    let settings = [
        "listen_addresses=*".to_owned(),
        format!("unix_socket_directories={directory}"),
        "shared_buffers=16MB".to_owned(),
        "fsync=off".to_owned(),
    ];
    let mut command: Vec<String> = [&["setpriv"], SETPRIV]
        .concat()
        .iter()
        .map(|word| (*word).to_owned())
        .collect();
    command.extend([
        postgres,
        "-D".to_owned(),
        data(scratch.path()).display().to_string(),
    ]);
    for setting in settings {
        command.extend(["-c".to_owned(), setting]);
    }
    let recipe = Recipe {
        command,
        port: PORT,
    };
    let server = Program::start(&format!("postgres {name}"), netns, scratch, recipe)?;
    wait_until("PostgreSQL to take statements", START_TIMEOUT, || {
        Ok(sql(&server, "SELECT 1").is_ok().then_some(()))
    })?;
    Ok(server)
}

/// setpriv's arguments for another user.
const SETPRIV: &[&str] = &[
    "--reuid=postgres",
    "--regid=postgres",
    "--clear-groups",
    "--",
];

/// `setpriv` with what makes it run one of PostgreSQL's programs.
fn as_system_user(mut setpriv: Command, name: &str) -> Result<Command> {
    setpriv.args(SETPRIV).arg(program(name)?);
    Ok(setpriv)
}

fn program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| format!("there is no {name}"))
}

/// A directory that belongs to the user that it runs as.
fn own_directory(name: &str) -> Result<ScratchDir> {
    let scratch = ScratchDir::new(&format!("postgres-{name}"))?;
    run(Command::new("chown").arg(SYSTEM_USER).arg(scratch.path()))?;
    Ok(scratch)
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}
