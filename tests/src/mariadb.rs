//! A real MariaDB as a backend, alone or as the replica of another one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::process::{Process, run};
use crate::scratch::ScratchDir;
use crate::wait::wait_until;

/// The user of health checks, and its password.
pub const CHECK_USER: &str = "lbcheck";
/// See [`CHECK_USER`].
pub const CHECK_PASSWORD: &str = "check-me";
/// A user that may read and write the database [`DATABASE`]; it has no password.
pub const APP_USER: &str = "app";
/// The database with the table `log (id bigint auto_increment, text varchar(64))`.
pub const DATABASE: &str = "shop";

/// How long a replica may take to apply what it has.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Files of a fresh installation, to be copied: to make them takes seconds.
#[derive(Debug)]
pub struct Installation {
    scratch: ScratchDir,
}

impl Installation {
    /// Makes one.
    pub fn new() -> Result<Self> {
        let scratch = ScratchDir::new("mariadb-installation")?;
        let data = scratch.path().join("data");
        // Each begins with removing what another one has for temporary in the same directory.
        run(Command::new("mariadb-install-db")
            .env("TMPDIR", scratch.path())
            .args(["--no-defaults", "--user=root"])
            .arg("--auth-root-authentication-method=normal")
            .arg("--skip-test-db")
            .arg(format!("--datadir={}", data.display())))
        .context("cannot install MariaDB's files")?;
        Ok(Self { scratch })
    }
}

/// Whether a server wants to know its clients' names. One that does remembers who has broken off handshakes,
/// and shuts out who has done so too often in a row (`max_connect_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Skipped,
    Resolved,
}

/// A MariaDB server. Dropping it ends it.
#[derive(Debug)]
pub struct MariaDb {
    name: String,
    server_id: u32,
    names: Names,
    process: Process,
    scratch: ScratchDir,
}

impl MariaDb {
    /// Starts a server on port 3306 of every address, with a GTID domain in common with all others.
    pub fn start(
        installation: &Installation,
        name: &str,
        netns: &Netns,
        server_id: u32,
    ) -> Result<Self> {
        Self::start_with(installation, name, netns, server_id, Names::Skipped)
    }

    /// As [`MariaDb::start`], a server that wants to know its clients' names, finds them in `hosts`, and shuts
    /// out whoever breaks off one handshake.
    pub fn start_unforgiving(
        installation: &Installation,
        name: &str,
        netns: &Netns,
        hosts: &str,
    ) -> Result<Self> {
        netns.set_hosts(hosts)?;
        let server = Self::start_with(installation, name, netns, 1, Names::Resolved)?;
        server.sql("SET GLOBAL max_connect_errors = 1")?;
        Ok(server)
    }

    fn start_with(
        installation: &Installation,
        name: &str,
        netns: &Netns,
        server_id: u32,
        names: Names,
    ) -> Result<Self> {
        let scratch = ScratchDir::new(&format!("mariadb-{name}"))?;
        let from = installation.scratch.path().join("data");
        run(Command::new("cp").arg("-a").arg(from).arg(scratch.path()))?;
        let process = spawn(name, netns, &scratch, server_id, names)?;
        let mut server = Self {
            name: name.to_owned(),
            server_id,
            names,
            process,
            scratch,
        };
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts it again after its end, with the data that it had.
    pub fn start_again(&mut self, netns: &Netns) -> Result<()> {
        let (server_id, names) = (self.server_id, self.names);
        self.process = spawn(&self.name, netns, &self.scratch, server_id, names)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = self.socket();
        let ask = move || run(client(&socket).args(["-e", "SELECT 1"]));
        self.process.wait_ready(START_TIMEOUT, || Ok(ask().is_ok()))
    }

    /// Creates the users and the database. On the primary: replicas follow.
    pub fn set_up(&self) -> Result<()> {
        self.sql(&format!(
            "CREATE USER {CHECK_USER}@'%' IDENTIFIED BY '{CHECK_PASSWORD}';
             GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO {CHECK_USER}@'%';
             CREATE USER repl@'%';
             GRANT REPLICATION SLAVE ON *.* TO repl@'%';
             CREATE DATABASE {DATABASE};
             CREATE USER {APP_USER}@'%';
             GRANT ALL ON {DATABASE}.* TO {APP_USER}@'%';
             CREATE TABLE {DATABASE}.log (id BIGINT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(64));"
        ))?;
        Ok(())
    }

    /// Makes it a replica of the server at `primary`, read-only.
    pub fn follow(&self, primary: IpAddr) -> Result<()> {
        self.sql(&format!(
            "STOP SLAVE; SET GLOBAL read_only = 1; SET GLOBAL rpl_semi_sync_slave_enabled = 1;
             CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_USER='repl', MASTER_CONNECT_RETRY=1,
                 MASTER_USE_GTID=slave_pos;
             START SLAVE;"
        ))?;
        Ok(())
    }

    /// As [`MariaDb::follow`], of a server that was a primary itself until now.
    pub fn follow_demoted(&self, primary: IpAddr) -> Result<()> {
        self.sql(&format!(
            "SET GLOBAL rpl_semi_sync_slave_enabled = 1;
             CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_USER='repl', MASTER_CONNECT_RETRY=1,
                 MASTER_USE_GTID=slave_pos, MASTER_DEMOTE_TO_SLAVE=1;
             START SLAVE;"
        ))?;
        Ok(())
    }

    /// Acknowledges nothing from now on before a replica has received it (semi-synchronous replication,
    /// AFTER_SYNC), however long that takes.
    pub fn await_replicas(&self) -> Result<()> {
        self.sql(
            "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC';
             SET GLOBAL rpl_semi_sync_master_timeout = 600000;
             SET GLOBAL rpl_semi_sync_master_enabled = 1;",
        )?;
        Ok(())
    }

    /// Waits until a replica has applied all that it has received.
    pub fn await_applied(&self) -> Result<()> {
        let all = "SELECT COUNT(*) FROM information_schema.processlist \
                   WHERE state LIKE 'Slave has read all relay log%'";
        wait_until("the replica to apply what it has", APPLY_TIMEOUT, || {
            Ok((self.sql(all)?.trim() == "1").then_some(()))
        })
    }

    /// The number of the last transaction that is in its data, its own or another one's.
    pub fn position(&self) -> Result<u64> {
        let gtid = self.sql("SELECT @@gtid_current_pos")?;
        let number = gtid.trim().rsplit('-').next();
        let number = number.and_then(|number| number.parse().ok());
        number.with_context(|| format!("{}: {gtid:?} is no position", self.name))
    }

    /// The ids of the servers that transactions in its binary log come from.
    pub fn writers(&self) -> Result<Vec<String>> {
        let state = self.sql("SELECT @@gtid_binlog_state")?;
        let gtids = state.trim().split(',');
        let mut ids: Vec<String> = gtids
            .filter_map(|gtid| Some(gtid.split('-').nth(1)?.to_owned()))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Makes it the primary.
    pub fn promote(&self) -> Result<()> {
        self.sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0;")?;
        Ok(())
    }

    /// Runs statements as root; returns what the client wrote, a row a line.
    pub fn sql(&self, statements: &str) -> Result<String> {
        run(client(&self.socket()).args(["-N", "-B", "-e", statements]))
            .with_context(|| format!("{}: {statements}", self.name))
    }

    /// The process, to stop or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn socket(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }
}

/// A client on a server's socket, as root.
fn client(socket: &std::path::Path) -> Command {
    let mut client = Command::new("mariadb");
    client
        .arg("--no-defaults")
        .arg("--user=root")
        .arg(format!("--socket={}", socket.display()));
    client
}

/// A client in a namespace, to `address`, as [`APP_USER`].
pub fn remote(netns: &Netns, address: IpAddr) -> Command {
    let mut client = netns.command("mariadb");
    client
        .args(["--no-defaults", "-N", "-B", "--connect-timeout=3"])
        .arg(format!("--user={APP_USER}"))
        .arg(format!("--host={address}"))
        .arg(format!("--database={DATABASE}"));
    client
}

fn spawn(
    name: &str,
    netns: &Netns,
    scratch: &ScratchDir,
    server_id: u32,
    names: Names,
) -> Result<Process> {
    let directory = scratch.path();
    let mut command = match names {
        Names::Skipped => netns.command("mariadbd"),
        // It brings the namespace's hosts file.
        Names::Resolved => {
            let mut ip = Command::new("ip");
            ip.args(["netns", "exec", netns.name(), "mariadbd"]);
            ip
        }
    };
    command.args(["--no-defaults", "--user=root"]);
    if names == Names::Skipped {
        command.arg("--skip-name-resolve");
    }
    command
        .arg(format!("--datadir={}", directory.join("data").display()))
        .arg(format!("--socket={}", directory.join("socket").display()))
        .arg(format!("--tmpdir={}", directory.display()))
        .arg(format!("--server-id={server_id}"))
        .args([
            "--log-bin=binlog",
            "--log-slave-updates=1",
            "--gtid-strict-mode=1",
        ])
        .args([
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=16M",
        ])
        .args(["--skip-slave-start", "--port=3306"]);
    Process::spawn(&format!("mariadb {name}"), command, &directory.join("log"))
}
