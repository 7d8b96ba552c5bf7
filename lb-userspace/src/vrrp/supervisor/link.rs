//! The connection to `lbd-vrrp`: JSON objects, one a line.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::process::Peer;
use super::task::SILENCE_MAX;
use crate::vrrp::protocol::{FromVrrp, ToVrrp};

/// A line: the status of 255 groups with all their VIPs. Unit: bytes.
const LINE_BYTES_MAX: usize = 8 << 20;

/// A connection.
pub(super) struct Link {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The beginning of a line whose end is still to come: waiting for it may be interrupted.
    partial: Vec<u8>,
    /// How long a process may take to read what it is told.
    patience: Duration,
}

/// What was said.
pub(super) enum Said {
    Line(Box<FromVrrp>),
    Nonsense(serde_json::Error),
}

impl Link {
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            partial: Vec::new(),
            patience: SILENCE_MAX,
        })
    }

    /// The process at the other end.
    pub(super) fn peer(&self) -> Option<Peer> {
        Peer::of(self.writer.as_ref())
    }

    /// Says something. A process that does not read it for so long hangs: [`io::ErrorKind::TimedOut`], and half
    /// of it may have been said.
    pub(super) async fn send(&mut self, message: &ToVrrp) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        match timeout(self.patience, self.writer.write_all(&line)).await {
            Ok(written) => written,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// The next line. What was read of it is kept if the wait is given up.
    pub(super) async fn next(&mut self) -> io::Result<Said> {
        use tokio::io::AsyncBufReadExt;
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken_bytes = end.map_or(available.len(), |end| end + 1);
            self.partial.extend(available.iter().take(taken_bytes));
            self.reader.consume(taken_bytes);
            if self.partial.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line without end"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                return Ok(match serde_json::from_slice(&line) {
                    Ok(message) => Said::Line(Box::new(message)),
                    Err(error) => Said::Nonsense(error),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_process_that_does_not_read_any_more_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock.vrrp");
        let listener = UnixListener::bind(&path).unwrap();
        let mut link = Link::connect(&path).await.unwrap();
        link.patience = Duration::from_millis(50);
        let (_deaf, _) = listener.accept().await.unwrap();
        let error = loop {
            if let Err(error) = link.send(&ToVrrp::Stop).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
