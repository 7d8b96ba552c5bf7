//! A small HTTP/1.1 client: a connection of one's own for each request unless asked otherwise, from
//! a chosen source port where that matters.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The header in which a backend names itself.
pub const BACKEND_HEADER: &str = "X-Backend";

/// How long each step of a request (connect, write, read) may take by default.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a connection goes, and from where.
#[derive(Clone, Debug)]
pub struct Target {
    /// The service's address and port.
    pub address: SocketAddr,
    /// The client's port; by default the kernel chooses.
    pub source_port: Option<u16>,
    /// How long each step may take.
    pub timeout: Duration,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            source_port: None,
            timeout: TIMEOUT,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The backend that answered, from its [`BACKEND_HEADER`]; empty where there is none.
    pub backend: String,
    /// The answer's body.
    pub body: Vec<u8>,
    /// The client's own end of the connection.
    pub local: SocketAddr,
}

/// One GET over a connection of its own, in the network namespace of the calling thread.
pub fn get(target: &Target, path: &str) -> Result<Response> {
    Connection::open(target)?.get(path)
}

/// A TCP connection that carries one request after another.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    /// Connects, in the network namespace of the calling thread. The connection can be used from
    /// any thread.
    pub fn open(target: &Target) -> Result<Self> {
        let stream = connect_stream(target)
            .with_context(|| format!("cannot connect to {}", target.address))?;
        stream.set_read_timeout(Some(target.timeout))?;
        stream.set_write_timeout(Some(target.timeout))?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream: BufReader::new(stream),
            address: target.address,
            local,
        })
    }

    /// The client's own end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks for `path` and reads the whole answer.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.request(&format!("GET {path}"), &[])
    }

    /// Sends `body` to `path` and reads the whole answer.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Result<Response> {
        self.request(&format!("POST {path}"), body)
    }

    fn request(&mut self, method_and_path: &str, body: &[u8]) -> Result<Response> {
        let head = format!(
            "{method_and_path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let stream = self.stream.get_mut();
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .with_context(|| format!("cannot send a request to {}", self.address))?;
        self.read_response().with_context(|| {
            format!(
                "no answer from {} to {method_and_path:?} (from {})",
                self.address, self.local
            )
        })
    }

    fn read_response(&mut self) -> Result<Response> {
        let status = parse_status(&self.read_line()?)?;
        let (mut backend, mut body_len) = (String::new(), None);
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("{line:?} is no HTTP header"))?;
            if name.eq_ignore_ascii_case(BACKEND_HEADER) {
                value.trim().clone_into(&mut backend);
            } else if name.eq_ignore_ascii_case("content-length") {
                body_len = Some(value.trim().parse().context("bad Content-Length")?);
            }
        }
        let mut body = vec![0; body_len.context("the answer has no Content-Length")?];
        self.stream
            .read_exact(&mut body)
            .context("the answer's body is cut short")?;
        Ok(Response {
            status,
            backend,
            body,
            local: self.local,
        })
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line)?;
        ensure!(length > 0, "the connection was closed");
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn parse_status(line: &str) -> Result<u16> {
    let mut words = line.split(' ');
    let is_http = words
        .next()
        .is_some_and(|version| version.starts_with("HTTP/1."));
    match words.next().and_then(|status| status.parse().ok()) {
        Some(status) if is_http => Ok(status),
        _ => bail!("{line:?} is no HTTP status line"),
    }
}

fn connect_stream(target: &Target) -> Result<TcpStream> {
    let Some(port) = target.source_port else {
        return Ok(TcpStream::connect_timeout(&target.address, target.timeout)?);
    };
    let (family, any) = match target.address {
        SocketAddr::V4(_) => (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The port is to be had again at once: closing resets the connection and leaves no TIME_WAIT.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let reset_on_close = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&fd, sockopt::Linger, &reset_on_close)?;
    // Linux applies the send time-out to connect, too (socket(7)).
    let timeout_ms = i64::try_from(target.timeout.as_millis())?;
    setsockopt(
        &fd,
        sockopt::SendTimeout,
        &TimeVal::new(timeout_ms / 1000, timeout_ms % 1000 * 1000),
    )?;
    bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(any, port)),
    )
    .with_context(|| format!("cannot take source port {port}"))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(target.address))?;
    Ok(TcpStream::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_backend::HttpBackend;

    fn backend_on_loopback() -> SocketAddr {
        let backend = HttpBackend::bind("web1", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = backend.address().unwrap();
        std::thread::spawn(move || backend.serve());
        address
    }

    #[test]
    fn requests_follow_each_other_on_one_connection() {
        let mut connection = Connection::open(&backend_on_loopback().into()).unwrap();
        for _ in 0..3 {
            let response = connection.get("/").unwrap();
            assert_eq!((response.status, response.backend.as_str()), (200, "web1"));
            assert_eq!(response.body, b"web1\n");
        }
        assert_eq!(
            connection.post("/upload", &[7; 100_000]).unwrap().status,
            200
        );
    }

    #[test]
    fn source_port_is_the_one_asked_for() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let target = Target {
            source_port: Some(free),
            ..Target::from(backend_on_loopback())
        };
        assert_eq!(get(&target, "/").unwrap().local.port(), free);
    }

    #[test]
    fn status_line_is_checked() {
        assert_eq!(parse_status("HTTP/1.1 404 Not Found").unwrap(), 404);
        assert!(parse_status("SSH-2.0-OpenSSH_9.2").is_err());
        assert!(parse_status("HTTP/1.1 many").is_err());
    }
}
