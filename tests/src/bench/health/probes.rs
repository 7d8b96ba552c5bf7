//! How many checks a second one thread makes.
//!
//! The servers are on loopback in a thread of their own, which takes part of the work that the network
//! would do: CPU time is that of the probing thread alone, user and system.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};
use futures::StreamExt as _;
use lb_userspace::health::probe::{Target, probe};
use lb_userspace::model::check::{
    CheckKind, ExchangeCheck, HttpCheck, HttpVersion, StatusRange, TlsCheck, Trust,
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

/// Checks under way at a time.
const AT_A_TIME: usize = 32;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: example\r\nContent-Type: text/plain\r\n\
    Content-Length: 3\r\nConnection: close\r\n\r\nup\n";

/// What a kind of check costs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cost {
    /// What is asked.
    kind: &'static str,
    /// Checks a second of wall-clock time, in the midst of what else the machine does.
    rate_per_s: f64,
    /// CPU time of one, user and system, of the thread that asks. Unit: microseconds.
    cpu_each_us: f64,
    /// Checks a second that fill one core.
    rate_per_core_per_s: f64,
    /// Checks that were made, and that failed.
    asked: u32,
    failed: u32,
}

/// Measures each kind in turn.
///
/// # Errors
/// No server, or checks that fail.
pub(super) fn measure_all(duration: Duration) -> Result<Vec<Cost>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tls, pem) = tls()?;
    let plain = listen(answer)?;
    let secured = listen(move |stream| answer_tls(stream, &tls))?;
    let kinds = [
        (
            "tcp",
            CheckKind::Tcp(ExchangeCheck::default()),
            listen(wait)?,
        ),
        ("http", http("", None), plain),
        ("http, with a body to be found", http("up", None), plain),
        (
            "https, a full handshake each",
            http("up", Some(pem)),
            secured,
        ),
    ];
    let costs = kinds.into_iter().map(|(name, kind, address)| {
        eprintln!("measuring {name}, {} s", duration.as_secs_f64());
        let cost = runtime.block_on(measure(name, &kind, address, duration));
        ensure!(
            cost.failed == 0,
            "{} of {} {name} checks failed",
            cost.failed,
            cost.asked
        );
        Ok(cost)
    });
    costs.collect()
}

/// The costs, for people.
pub(super) fn table(costs: &[Cost]) -> String {
    let mut text = format!(
        "{:<32}{:>14}{:>16}{:>20}\n",
        "check", "a second", "us of CPU each", "a second in a core"
    );
    for cost in costs {
        text += &format!(
            "{:<32}{:>14.0}{:>16.1}{:>20.0}\n",
            cost.kind, cost.rate_per_s, cost.cpu_each_us, cost.rate_per_core_per_s
        );
    }
    text
}

async fn measure(
    name: &'static str,
    kind: &CheckKind,
    address: SocketAddr,
    duration: Duration,
) -> Cost {
    let target = Target {
        address,
        source: None,
        vip: None,
    };
    let (began, cpu_began) = (Instant::now(), cpu());
    let asking = futures::stream::repeat(())
        .take_while(|()| std::future::ready(began.elapsed() < duration))
        .map(|()| probe(kind, target, Instant::now() + Duration::from_secs(1)))
        .buffer_unordered(AT_A_TIME);
    let (asked, failed) = asking
        .fold((0_u32, 0), async |(asked, failed), (result, _)| {
            (asked + 1, failed + u32::from(result.is_err()))
        })
        .await;
    let cpu_each = (cpu() - cpu_began) / asked.max(1);
    Cost {
        kind: name,
        rate_per_s: f64::from(asked) / began.elapsed().as_secs_f64(),
        cpu_each_us: cpu_each.as_secs_f64() * 1e6,
        rate_per_core_per_s: 1.0 / cpu_each.as_secs_f64(),
        asked,
        failed,
    }
}

/// What this thread has used.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the clock exists");
    used.into()
}

fn http(body: &str, pem: Option<Arc<[u8]>>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: pem.map(|pem| TlsCheck {
            server_name: None,
            trust: Trust::Authorities {
                file: "ca.pem".into(),
                pem,
            },
            min_valid_days: 14,
        }),
        version: HttpVersion::Http1,
        method: "GET".to_owned(),
        path: "/health".to_owned(),
        host: Some("web.example".to_owned()),
        headers: Vec::new(),
        status: vec![StatusRange {
            first: 200,
            last: 399,
        }],
        body: body.to_owned(),
    })
}

/// Serves one connection after the other, in a thread that ends with the process.
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> Result<SocketAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any_port.into())?;
    // Connections that are reset wait in the queue, too, until they are accepted.
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    Ok(address)
}

/// Until the other side has gone.
fn wait(mut stream: TcpStream) {
    while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
}

fn answer(mut stream: TcpStream) {
    if stream.read(&mut [0; 4096]).is_ok() && stream.write_all(ANSWER).is_ok() {
        wait(stream);
    }
}

fn answer_tls(mut stream: TcpStream, config: &Arc<ServerConfig>) {
    // What fails here is a check that fails, and is counted there.
    let _still_slower = stream.set_nodelay(true);
    let Ok(mut connection) = ServerConnection::new(Arc::clone(config)) else {
        return;
    };
    let mut secured = Stream::new(&mut connection, &mut stream);
    if secured.read(&mut [0; 4096]).is_ok() && secured.write_all(ANSWER).is_ok() {
        wait(stream);
    }
}

/// A server's configuration, and the certificate to trust.
fn tls() -> Result<(Arc<ServerConfig>, Arc<[u8]>)> {
    let own = rcgen::generate_simple_self_signed(["web.example".to_owned()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(Error::msg)?;
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)?;
    Ok((Arc::new(config), own.cert.pem().into_bytes().into()))
}
