//! A real nginx as a backend. It answers every request with its own name, in the body and in the
//! header `X-Backend`; `/big` is a file of [`BIG_LEN`] bytes, and [`SLOW_PATH`] is the same file at a
//! limited rate; the body of an upload to `/upload` is kept in the file that the header `X-Upload`
//! names, and of others it is thrown away.

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

/// [`BIG_LEN`] bytes at [`SLOW_RATE_BYTES`] a second.
pub const SLOW_PATH: &str = "/slow";
/// The rate of [`SLOW_PATH`]. nginx sends a second's worth at a time. Unit: bytes per second.
pub const SLOW_RATE_BYTES: usize = 16 << 10;

/// The header in which `/upload` names the file that holds what was sent.
pub const UPLOAD_HEADER: &str = "X-Upload";

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
        let big = www.join("big");
        fs::write(&big, big_content())
            .with_context(|| format!("cannot write {}", big.display()))?;
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

/// What `/big` holds: bytes of which no two stretches are alike, so that whatever is lost, doubled or
/// out of place shows.
pub fn big_content() -> Vec<u8> {
    // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BIG_LEN / 8).flat_map(|_| next()).collect()
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

/// nginx reads a body only for somebody who wants it: `/upload` passes the request, without the body,
/// on to `/`.
fn config(name: &str, directory: &str, ports: &[u16]) -> String {
    let own_port = ports.first().copied().unwrap_or(80);
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
  client_body_timeout 1h;
  keepalive_timeout 1h;
  keepalive_requests 1000000;
  default_type text/plain;
  server {{
{listens}    root {directory}/www;
    add_header {BACKEND_HEADER} {name} always;
    location / {{ return 200 \"{name}\\n\"; }}
    location = /big {{ }}
    location = {SLOW_PATH} {{ alias {directory}/www/big; limit_rate {SLOW_RATE_BYTES}; }}
    location = /upload {{
      client_body_in_file_only on;
      proxy_pass http://127.0.0.1:{own_port}/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length \"\";
      proxy_hide_header {BACKEND_HEADER};
      add_header {BACKEND_HEADER} {name} always;
      add_header {UPLOAD_HEADER} $request_body_file always;
    }}
  }}
}}
"
    )
}
