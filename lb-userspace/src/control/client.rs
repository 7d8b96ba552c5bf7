//! The client's end of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::proto::{ErrorBody, Refusal};

/// Largest answer: 16,383 services and 32,767 backends at ~500 bytes each. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the whole exchange may take: the server's own bound, and the wait for a place before it.
const ANSWER_TIMEOUT: Duration = super::REQUEST_TIMEOUT.saturating_add(Duration::from_secs(5));

/// How long to knock at a socket whose queue is full.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two knocks: nothing tells that there is room in the queue of a unix socket.
const KNOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not ask.
    #[error("cannot reach lbd at {}: {source}\n{}", path.display(), way_out(.source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or the answer did not come in time.
    #[error("lbd at {} did not answer: {reason}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The answer is none that this client knows.
    #[error("lbd at {} gave an answer that lbctl does not understand ({reason}): are both of one version?", path.display())]
    Unintelligible {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Refused: nothing was changed, unless [`ErrorBody::leaves_doubt`].
    #[error("{}", .0.message)]
    Refused(ErrorBody),
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the socket is for root and its group: use sudo, or join the group"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is lbd running? If it has another socket, give it with --socket or LBCTL_SOCKET"
        }
        io::ErrorKind::WouldBlock => {
            "lbd has too many clients: try again, and see with `ss -xp` who they are"
        }
        _ => "check the path given with --socket or LBCTL_SOCKET",
    }
}

/// A client of one `lbd`. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the `lbd` behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// GET.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// POST.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = self.encode(body)?;
        self.request(Method::POST, path, body).await
    }

    /// PATCH.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = self.encode(body)?;
        self.request(Method::PATCH, path, body).await
    }

    /// PUT.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = self.encode(body)?;
        self.request(Method::PUT, path, body).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, Bytes::new()).await
    }

    fn encode(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body)
            .map(Bytes::from)
            .map_err(|error| self.no_answer(error))
    }

    fn no_answer(&self, reason: impl ToString) -> ClientError {
        ClientError::NoAnswer {
            path: self.socket.clone(),
            reason: reason.to_string(),
        }
    }

    fn unintelligible(&self, reason: impl ToString) -> ClientError {
        ClientError::Unintelligible {
            path: self.socket.clone(),
            reason: reason.to_string(),
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let exchange = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body));
        let (status, answer) = exchange
            .await
            .map_err(|_| self.no_answer(format!("waited {} s", ANSWER_TIMEOUT.as_secs())))??;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.unintelligible(error));
        }
        match serde_json::from_slice::<Refusal>(&answer) {
            Ok(refusal) => Err(ClientError::Refused(refusal.error)),
            Err(error) => Err(self.unintelligible(format!("{status}, {error}"))),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let deadline = Instant::now() + KNOCK_TIMEOUT;
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    tokio::time::sleep(KNOCK_PAUSE).await;
                }
                connected => {
                    return connected.map_err(|source| ClientError::Unreachable {
                        path: self.socket.clone(),
                        source,
                    });
                }
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.no_answer(error))?;
        // The exchange reports what goes wrong with the connection.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "lbd")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.no_answer(error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| self.no_answer(error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| self.no_answer(error))?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// One segment of a path: a name as it was typed, with everything unsafe percent-encoded.
pub fn segment(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.bytes().fold(String::new(), |mut text, byte| {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn names_are_made_safe_for_a_path() {
        assert_eq!(segment("web-1.example"), "web-1.example");
        assert_eq!(segment("a/b?c d\u{e9}"), "a%2Fb%3Fc%20d%C3%A9");
    }
}
