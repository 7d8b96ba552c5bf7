//! Flows to nginx: requests over one connection, slow downloads, slow chunked uploads.

use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::breakage::Breakage;
use super::flow::Flow;
use super::records::check_backend;
use super::world::{World, connect};
use crate::http::BACKEND_HEADER;
use crate::nginx::{SLOW_PATH, SLOW_RATE_BYTES, UPLOAD_HEADER};

/// Bytes of a download that prove it alive: more than can be under way or lie in a buffer, since
/// nginx sends a second's worth at a time and the client reads all the time.
const PROOF_BYTES: usize = SLOW_RATE_BYTES + SLOW_RATE_BYTES / 4;
/// Length of an upload's chunk.
const CHUNK_LEN: usize = 64;

/// What an answer's head says.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    backend: u8,
    body_len: usize,
    upload: Option<String>,
}

/// A connection to nginx.
struct Http {
    stream: BufReader<TcpStream>,
    backend: u8,
}

impl Http {
    async fn open(address: SocketAddr) -> Result<Self, Breakage> {
        Ok(Self {
            stream: BufReader::with_capacity(32 << 10, connect(address).await?),
            backend: 0,
        })
    }

    async fn ask(&mut self, path: &str) -> Result<(), Breakage> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        Ok(())
    }

    async fn head(&mut self) -> Result<Head, Breakage> {
        let mut head = Head::default();
        let status_line = self.line().await?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok());
        head.status = status.ok_or_else(|| Breakage::WrongData(status_line.clone()))?;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            head.take_line(&line);
        }
        if head.status != 200 {
            return Err(Breakage::WrongData(status_line));
        }
        check_backend(self.backend, head.backend)?;
        self.backend = head.backend;
        Ok(head)
    }

    async fn line(&mut self) -> Result<String, Breakage> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(Breakage::Closed);
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    async fn body(&mut self, length: usize) -> Result<Vec<u8>, Breakage> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    /// The answer to `GET /`: the backend's name, which the header must agree with.
    async fn read_name(&mut self) -> Result<Head, Breakage> {
        let head = self.head().await?;
        let body = self.body(head.body_len).await?;
        if body != format!("web{}\n", head.backend).as_bytes() {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Breakage::WrongData(text));
        }
        Ok(head)
    }
}

impl Head {
    fn take_line(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else {
            return;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case(BACKEND_HEADER) {
            let number = value
                .strip_prefix("web")
                .and_then(|number| number.parse().ok());
            self.backend = number.unwrap_or(0);
        } else if name.eq_ignore_ascii_case("content-length") {
            self.body_len = value.parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case(UPLOAD_HEADER) {
            self.upload = Some(value.to_owned());
        }
    }
}

/// One request after another.
pub(super) struct Requests {
    http: Http,
}

impl Requests {
    /// Connects and sends the first request.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Breakage> {
        let mut requests = Self {
            http: Http::open(address).await?,
        };
        requests.step().await?;
        Ok(requests)
    }
}

impl Flow for Requests {
    async fn step(&mut self) -> Result<(), Breakage> {
        self.http.ask("/").await?;
        self.http.read_name().await?;
        Ok(())
    }

    fn backend(&self) -> u8 {
        self.http.backend
    }
}

/// A download at a limited rate; when it is complete, the next one over the same connection.
pub(super) struct Download {
    http: Http,
    world: Rc<World>,
    /// Bytes of the content that have been read and compared.
    position: usize,
}

impl Download {
    /// Connects, asks, and reads the first bytes.
    pub(super) async fn open(address: SocketAddr, world: Rc<World>) -> Result<Self, Breakage> {
        let mut download = Self {
            http: Http::open(address).await?,
            position: world.content.len(),
            world,
        };
        download.read_some().await?;
        Ok(download)
    }

    async fn read_some(&mut self) -> Result<usize, Breakage> {
        if self.position == self.world.content.len() {
            self.begin().await?;
        }
        let bytes = self.http.stream.fill_buf().await?;
        if bytes.is_empty() {
            return Err(Breakage::Closed);
        }
        let expected = &self.world.content[self.position..];
        let length = bytes.len().min(expected.len());
        if bytes[..length] != expected[..length] {
            let position = self.position;
            return Err(Breakage::WrongData(format!("after byte {position}")));
        }
        self.http.stream.consume(length);
        self.position += length;
        Ok(length)
    }

    async fn begin(&mut self) -> Result<(), Breakage> {
        self.http.ask(SLOW_PATH).await?;
        let head = self.http.head().await?;
        if head.body_len != self.world.content.len() {
            return Err(Breakage::WrongData(format!("{head:?}")));
        }
        self.position = 0;
        Ok(())
    }
}

impl Flow for Download {
    async fn step(&mut self) -> Result<(), Breakage> {
        self.read_some().await?;
        Ok(())
    }

    async fn prove(&mut self) -> Result<(), Breakage> {
        let mut read = 0;
        while read < PROOF_BYTES {
            read += self.read_some().await?;
        }
        Ok(())
    }

    fn backend(&self) -> u8 {
        self.http.backend
    }
}

/// A chunked upload, a chunk at a time. A proof ends it, compares what nginx has kept with what was
/// sent, and begins the next one over the same connection.
pub(super) struct Upload {
    http: Http,
    world: Rc<World>,
    sent_len: usize,
}

impl Upload {
    /// Connects, and sends a first upload, a short one.
    pub(super) async fn open(address: SocketAddr, world: Rc<World>) -> Result<Self, Breakage> {
        let mut upload = Self {
            http: Http::open(address).await?,
            world,
            sent_len: 0,
        };
        upload.begin().await?;
        upload.prove().await?;
        Ok(upload)
    }

    async fn begin(&mut self) -> Result<(), Breakage> {
        let head = "POST /upload HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.http.stream.write_all(head.as_bytes()).await?;
        self.sent_len = 0;
        Ok(())
    }

    /// Ends the upload and looks at what nginx has kept of it.
    async fn finish(&mut self) -> Result<(), Breakage> {
        self.http.stream.write_all(b"0\r\n\r\n").await?;
        let head = self.http.read_name().await?;
        let path = head
            .upload
            .ok_or_else(|| Breakage::WrongData("no upload".to_owned()))?;
        // nginx runs on this machine, and its network namespace has the same files.
        let kept = fs::read(&path)?;
        fs::remove_file(&path)?;
        if kept != self.world.content[..self.sent_len] {
            let (kept, sent) = (kept.len(), self.sent_len);
            return Err(Breakage::WrongData(format!("{kept} bytes kept of {sent}")));
        }
        Ok(())
    }
}

impl Flow for Upload {
    async fn step(&mut self) -> Result<(), Breakage> {
        let end = self.sent_len + CHUNK_LEN;
        if end > self.world.content.len() {
            self.finish().await?;
            return self.begin().await;
        }
        let mut chunk = format!("{CHUNK_LEN:x}\r\n").into_bytes();
        chunk.extend(&self.world.content[self.sent_len..end]);
        chunk.extend(b"\r\n");
        self.http.stream.write_all(&chunk).await?;
        self.sent_len = end;
        Ok(())
    }

    async fn prove(&mut self) -> Result<(), Breakage> {
        self.step().await?;
        self.finish().await?;
        self.begin().await
    }

    fn backend(&self) -> u8 {
        self.http.backend
    }
}
