//! nginx with TLS: certificates and protocols change while it runs.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::certificates::Identity;
use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where it listens, over IPv4 and IPv6.
pub const PORT: u16 = 443;

/// What it offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// What is said to the listening socket, such as `ssl http2`.
    pub listen: &'static str,
    /// What a request gets.
    pub location: &'static str,
}

/// HTTP/1.1 and HTTP/2, and an answer at once.
pub const GOOD: Offer = Offer {
    listen: "ssl http2",
    location: "return 200 \"ready\\n\";",
};

/// Starts nginx in `netns`.
pub fn start(name: &str, netns: &Netns, identity: &Identity) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("nginx-tls-{name}"))?;
    let directory = scratch.path().display().to_string();
    scratch.write("certificate.pem", &identity.certificate)?;
    scratch.write("key.pem", &identity.key)?;
    let config = scratch.write("nginx.conf", &config(scratch.path(), GOOD))?;
    let recipe = Recipe {
        command: vec![
            "nginx".to_owned(),
            "-e".to_owned(),
            format!("{directory}/error.log"),
            "-p".to_owned(),
            directory,
            "-c".to_owned(),
            config.display().to_string(),
        ],
        port: PORT,
    };
    Program::start(&format!("nginx {name}"), netns, scratch, recipe)
}

/// Gives it another certificate while it runs.
pub fn present(nginx: &mut Program, identity: &Identity) -> Result<()> {
    nginx.write("certificate.pem", &identity.certificate)?;
    nginx.write("key.pem", &identity.key)?;
    nginx.process().signal(Signal::SIGHUP)
}

/// Has it offer something else while it runs.
pub fn offer(nginx: &mut Program, offer: Offer) -> Result<()> {
    let config = config(nginx.directory(), offer);
    nginx.write("nginx.conf", &config)?;
    nginx.process().signal(Signal::SIGHUP)
}

fn config(directory: &Path, offer: Offer) -> String {
    let directory = directory.display();
    let Offer { listen, location } = offer;
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  default_type text/plain;
  limit_req_zone $server_port zone=slow:32k rate=1r/m;
  server {{
    listen 0.0.0.0:{PORT} {listen};
    listen [::]:{PORT} {listen} ipv6only=on;
    ssl_certificate {directory}/certificate.pem;
    ssl_certificate_key {directory}/key.pem;
    location / {{ {location} }}
  }}
}}
"
    )
}
