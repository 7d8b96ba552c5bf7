//! php-fpm, to be asked by FastCGI, and nginx in front of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::requirement::find_program;
use crate::scratch::ScratchDir;

/// Where php-fpm listens.
pub const PORT: u16 = 9000;
/// Where nginx does.
pub const WEB_PORT: u16 = 80;
/// The page that says `ready`, behind nginx.
pub const PAGE: &str = "/health.php";

const SCRIPT: &str = include_str!("apps/health.php");

/// Starts php-fpm in `netns`. `/ping` says `pong`, and the script [`script`] says `ready`. Modes of the
/// latter: `slow`, `broken` (an exception), `starting`.
///
/// It has more children than a test has checks: over a connection over which nothing ever comes, a child
/// waits for five seconds.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("php-fpm-{name}"))?;
    scratch.write("health.php", SCRIPT)?;
    let config = scratch.write("php-fpm.conf", &config(scratch.path()))?;
    let program = find_program("php-fpm").context("there is no php-fpm")?;
    let recipe = Recipe {
        command: vec![
            program.display().to_string(),
            "--nodaemonize".to_owned(),
            "--allow-to-run-as-root".to_owned(),
            format!("--fpm-config={}", config.display()),
        ],
        port: PORT,
    };
    Program::start(&format!("php-fpm {name}"), netns, scratch, recipe)
}

/// The path of the script, as FastCGI names it.
pub fn script(php: &Program) -> PathBuf {
    php.directory().join("health.php")
}

fn config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "[global]
error_log = {directory}/error.log
[www]
user = root
group = root
listen = 0.0.0.0:{PORT}
pm = ondemand
pm.max_children = 40
ping.path = /ping
php_admin_flag[display_errors] = off
php_admin_flag[log_errors] = on
"
    )
}

/// Starts nginx in `netns`, in front of `php`.
pub fn start_nginx(name: &str, netns: &Netns, php: &Program) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("nginx-php-{name}"))?;
    let config = nginx_config(scratch.path(), php.directory());
    let config = scratch.write("nginx.conf", &config)?;
    let directory = scratch.path().display().to_string();
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
        port: WEB_PORT,
    };
    Program::start(&format!("nginx {name}"), netns, scratch, recipe)
}

fn nginx_config(directory: &Path, root: &Path) -> String {
    let (directory, root) = (directory.display(), root.display());
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
  server {{
    listen 0.0.0.0:{WEB_PORT};
    location ~ \\.php$ {{
      fastcgi_pass 127.0.0.1:{PORT};
      fastcgi_param SCRIPT_FILENAME {root}$fastcgi_script_name;
      fastcgi_param SCRIPT_NAME $fastcgi_script_name;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param SERVER_PROTOCOL $server_protocol;
    }}
  }}
}}
"
    )
}
