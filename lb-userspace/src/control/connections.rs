//! The connections of the socket, each with a bound on its time and all with one on their number.
//!
//! A client that says nothing, reads nothing or comes a thousand times costs a place for a while, and
//! neither descriptors nor time that the engine needs.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower_service::Service;
use tracing::{debug, warn};

use super::error::ApiError;

/// What clients may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections served at a time; the others wait in the socket's backlog.
    pub(super) connections_max: usize,
    /// From the connection to the end of the request's head.
    pub(super) head_timeout: Duration,
    /// From the end of the head to the beginning of the answer.
    pub(super) request_timeout: Duration,
    /// For everything, the reading of the answer included.
    pub(super) connection_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 64,
            head_timeout: Duration::from_secs(5),
            request_timeout: super::REQUEST_TIMEOUT,
            connection_timeout: Duration::from_secs(60),
        }
    }
}

/// The pause after a connection that could not be accepted: nothing tells when there are descriptors
/// or memory again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves connections until `stop` completes and the requests under way are answered. Whoever drops
/// the future cuts them off.
pub(super) async fn serve(
    listener: UnixListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) {
    let (stop_connections, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next() => tell_panic(ended),
            stream = accept(&listener), if connections.len() < bounds.connections_max => {
                connections.spawn(bounded(stream, router.clone(), bounds, stopping.clone()));
            }
        }
    }
    drop(listener);
    drop(stop_connections);
    while let Some(ended) = connections.join_next().await {
        tell_panic(ended);
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("cannot accept a client of the API: {error}; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!("a request to the API was cut off: {error}");
    }
}

async fn bounded(
    stream: UnixStream,
    router: Router,
    bounds: Bounds,
    stopping: watch::Receiver<()>,
) {
    let served = converse(stream, router, bounds, stopping);
    match timeout(bounds.connection_timeout, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a client of the API was cut off: {error}"),
        Err(_) => debug!("a client of the API did not read its answer"),
    }
}

/// One request and its answer: a connection that stays open would keep a place that others wait for.
async fn converse(
    stream: UnixStream,
    router: Router,
    bounds: Bounds,
    mut stopping: watch::Receiver<()>,
) -> hyper::Result<()> {
    let service = service_fn(|request| answer(router.clone(), request, bounds.request_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        // The sender never sends; it is dropped when it is time to stop.
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    patience: Duration,
) -> Result<Response, Infallible> {
    match timeout(patience, router.call(request)).await {
        Ok(answer) => answer,
        Err(_) => Ok(ApiError::timed_out(patience).into_response()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::JoinHandle;

    use super::super::Monitor;
    use super::super::server::router;
    use super::*;
    use crate::engine::{EngineHandle, Request};

    /// An API before an engine that never answers.
    struct Api {
        socket: PathBuf,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
        _requests: mpsc::Receiver<Request>,
        _directory: tempfile::TempDir,
    }

    impl Api {
        fn start(bounds: Bounds) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let socket = directory.path().join("lbd.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let (engine, requests) = EngineHandle::new();
            let (stop, stopped) = oneshot::channel();
            let stopped = async move { stopped.await.unwrap() };
            let task = tokio::spawn(serve(
                listener,
                router(engine, Monitor::default()),
                bounds,
                stopped,
            ));
            Self {
                socket,
                stop,
                task,
                _requests: requests,
                _directory: directory,
            }
        }
    }

    /// Bounds that no test runs into.
    fn generous() -> Bounds {
        let long = Duration::from_secs(600);
        Bounds {
            connections_max: 64,
            head_timeout: long,
            request_timeout: long,
            connection_timeout: long,
        }
    }

    const SOON: Duration = Duration::from_millis(50);

    /// A connection on which `text` was sent.
    async fn say(socket: &Path, text: &str) -> UnixStream {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the server hangs up.
    async fn hear(mut stream: UnixStream) -> String {
        let mut bytes = Vec::new();
        let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes));
        match read.await.expect("the server hangs up") {
            Ok(_) => String::from_utf8(bytes).unwrap(),
            Err(error) => format!("{error}"),
        }
    }

    const DOCUMENT: &str = "GET /openapi.json HTTP/1.1\r\nHost: lbd\r\n\r\n";
    const STATUS: &str = "GET /v1/status HTTP/1.1\r\nHost: lbd\r\n\r\n";

    #[tokio::test]
    async fn silent_clients_lose_their_places_to_those_who_wait() {
        let api = Api::start(Bounds {
            connections_max: 2,
            head_timeout: SOON,
            ..generous()
        });
        let silent = say(&api.socket, "").await;
        let slow = say(&api.socket, "GET /v1/status HTT").await;
        let third = say(&api.socket, DOCUMENT).await;
        assert!(hear(third).await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(hear(silent).await, "");
        assert!(!hear(slow).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_served_at_a_time() {
        let api = Api::start(Bounds {
            connections_max: 1,
            ..generous()
        });
        let first = say(&api.socket, STATUS).await;
        let mut second = say(&api.socket, DOCUMENT).await;
        let mut byte = [0];
        let early = timeout(SOON, second.read(&mut byte)).await;
        assert!(early.is_err(), "served beside another");
        drop(first);
        assert!(hear(second).await.starts_with("HTTP/1.1 200 OK"));
    }

    #[tokio::test]
    async fn an_engine_or_a_body_that_does_not_come_is_an_answer_in_time() {
        let api = Api::start(Bounds {
            request_timeout: SOON,
            ..generous()
        });
        let body = "POST /v1/services HTTP/1.1\r\nHost: lbd\r\nContent-Length: 9\r\n\r\n{";
        for request in [STATUS, body] {
            let answer = hear(say(&api.socket, request).await).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("\"code\":\"timed_out\""), "{answer}");
        }
    }

    #[tokio::test]
    async fn everything_together_has_an_end() {
        let api = Api::start(Bounds {
            connection_timeout: SOON,
            ..generous()
        });
        assert_eq!(hear(say(&api.socket, STATUS).await).await, "");
    }

    #[tokio::test]
    async fn a_connection_is_closed_after_its_answer() {
        let api = Api::start(generous());
        let answer = hear(say(&api.socket, DOCUMENT).await).await;
        assert!(answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn a_stop_waits_for_requests_and_not_for_the_silent() {
        let api = Api::start(Bounds {
            request_timeout: SOON,
            ..generous()
        });
        let silent = say(&api.socket, "").await;
        let under_way = say(&api.socket, STATUS).await;
        // It is answered after the silent one was accepted.
        assert!(
            hear(say(&api.socket, DOCUMENT).await)
                .await
                .contains("200 OK")
        );
        api.stop.send(()).unwrap();
        assert!(hear(under_way).await.contains("timed_out"));
        assert_eq!(hear(silent).await, "");
        api.task.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_aborts_the_task_cuts_everybody_off() {
        let api = Api::start(generous());
        let under_way = say(&api.socket, STATUS).await;
        assert!(
            hear(say(&api.socket, DOCUMENT).await)
                .await
                .contains("200 OK")
        );
        api.task.abort();
        assert!(!hear(under_way).await.contains("HTTP/1.1"));
    }
}
