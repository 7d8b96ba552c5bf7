//! A real nginx as a backend. It answers every request with its own name, in the body and in the
//! header `X-Backend`; `/big` is a file of [`BIG_LEN`] bytes; bodies of uploads are read and thrown
//! away.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::BACKEND_HEADER;
use crate::netns::Netns;
use crate::process::Process;
use crate::scratch::ScratchDir;

/// Length of the file `/big`. Unit: bytes.
pub const BIG_LEN: usize = 3 << 20;

/// How long nginx may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A running nginx. Dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    access_log: PathBuf,
    scratch: ScratchDir,
}

impl Nginx {
    /// Starts nginx in `netns`, listening on `ports` of every IPv4 and IPv6 address, and waits
    /// until it does.
    pub fn start(name: &str, netns: &Netns, ports: &[u16]) -> Result<Self> {
        Self::start_in(
            ScratchDir::new(&format!("nginx-{name}"))?,
            name,
            netns,
            ports,
        )
    }

    /// As [`Nginx::start`], with its files in `scratch`.
    pub fn start_in(scratch: ScratchDir, name: &str, netns: &Netns, ports: &[u16]) -> Result<Self> {
        let directory = scratch.path();
        let www = directory.join("www");
        fs::create_dir(&www).with_context(|| format!("cannot create {}", www.display()))?;
        scratch.write("www/big", &"x".repeat(BIG_LEN))?;
        let config = scratch.write(
            "nginx.conf",
            &config(name, &directory.display().to_string(), ports),
        )?;
        let mut command = netns.command("nginx");
        command.arg("-e").arg(directory.join("error.log"));
        command.arg("-p").arg(directory).arg("-c").arg(config);
        let log = directory.join("output.log");
        let mut process = Process::spawn(&format!("nginx {name}"), command, &log)?;
        wait_listening(&mut process, netns, ports)?;
        Ok(Self {
            process,
            access_log: directory.join("access.log"),
            scratch,
        })
    }

    /// Lines of the access log: `CLIENT_ADDRESS CLIENT_PORT SERVER_PORT STATUS URI`.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.access_log)
            .with_context(|| format!("cannot read {}", self.access_log.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The process, to stop or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Leaves it running, and its files in place.
    pub fn keep(&mut self) {
        self.process.keep();
        self.scratch.keep();
    }
}

/// Waits until a server in `netns` accepts connections on all `ports`.
pub fn wait_listening(process: &mut Process, netns: &Netns, ports: &[u16]) -> Result<()> {
    process.wait_ready(START_TIMEOUT, || {
        netns.run(|| {
            ports.iter().all(|port| {
                let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port);
                TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok()
            })
        })
    })
}

fn config(name: &str, directory: &str, ports: &[u16]) -> String {
    let listens: String = ports
        .iter()
        .map(|port| format!("    listen 0.0.0.0:{port};\n    listen [::]:{port} ipv6only=on;\n"))
        .collect();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  log_format lab '$remote_addr $remote_port $server_port $status $request_uri';
  access_log {directory}/access.log lab;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 64m;
  default_type text/plain;
  server {{
{listens}    root {directory}/www;
    add_header {BACKEND_HEADER} {name} always;
    location / {{ return 200 \"{name}\\n\"; }}
    location = /big {{ }}
  }}
}}
"
    )
}
