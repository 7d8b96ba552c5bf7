//! A small HTTP server that answers with its own name: the demo's backend where nginx is not
//! installed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::BACKEND_HEADER;

/// A connection is closed after this long without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest request body that is read. Unit: bytes.
const BODY_LEN_MAX: u64 = 64 << 20;

/// A listening server.
#[derive(Debug)]
pub struct HttpBackend {
    name: String,
    listener: TcpListener,
}

impl HttpBackend {
    /// Listens on `address`; `[::]` takes IPv4 as well. `name` is what it answers.
    pub fn bind(name: &str, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("backend {name} cannot listen on {address}"))?;
        Ok(Self {
            name: name.to_owned(),
            listener,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the listening socket fails, each connection on a thread of its own.
    pub fn serve(self) -> Result<()> {
        loop {
            let (stream, _) = self
                .listener
                .accept()
                .context("cannot accept a connection")?;
            let name = self.name.clone();
            // A client that goes away in the middle concerns nobody else.
            thread::spawn(move || drop(serve_connection(&name, stream)));
        }
    }
}

fn serve_connection(name: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(body_len) = read_head(&mut reader)? {
        io::copy(
            &mut (&mut reader).take(body_len.min(BODY_LEN_MAX)),
            &mut io::sink(),
        )?;
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{BACKEND_HEADER}: {name}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{name}\n",
            name.len() + 1
        );
        writer.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Reads a request up to its empty line. Returns the length of the body that follows, or nothing at
/// the connection's end.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut body_len = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some(body_len));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_len = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}
