//! How many checks a second one thread makes: `cargo run --release -p lb-userspace --example probe_rate`.
//!
//! The servers are on loopback in a thread of their own, which takes part of the work that the network
//! would do: CPU time is that of the probing thread alone, user and system.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures::StreamExt;
use lb_userspace::health::probe::{Target, probe};
use lb_userspace::model::check::{
    CheckKind, ExchangeCheck, HttpCheck, HttpVersion, StatusRange, TlsCheck, Trust,
};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

/// Checks under way at a time.
const AT_A_TIME: usize = 32;

/// How long each kind is measured.
const MEASURED: Duration = Duration::from_secs(5);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: example\r\nContent-Type: text/plain\r\n\
    Content-Length: 3\r\nConnection: close\r\n\r\nup\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (tls, pem) = tls();
    let plain = listen(answer);
    let secured = listen(move |stream| answer_tls(stream, &tls));
    for (name, kind, address) in [
        (
            "tcp",
            CheckKind::Tcp(ExchangeCheck::default()),
            listen(wait),
        ),
        ("http", http("", None), plain),
        ("http, body", http("up", None), plain),
        ("https", http("up", Some(pem)), secured),
    ] {
        println!("{name:12}{}", runtime.block_on(measure(&kind, address)));
    }
}

/// Asks for a while, and says how often and at what cost.
async fn measure(kind: &CheckKind, address: SocketAddr) -> String {
    let target = Target {
        address,
        source: None,
        vip: None,
    };
    let (began, cpu_began) = (Instant::now(), cpu());
    let asking = futures::stream::repeat(())
        .take_while(|()| std::future::ready(began.elapsed() < MEASURED))
        .map(|()| probe(kind, target, Instant::now() + Duration::from_secs(1)))
        .buffer_unordered(AT_A_TIME);
    let (asked, failed) = asking
        .fold((0_u32, 0), async |(asked, failed), (result, _)| {
            (asked + 1, failed + u32::from(result.is_err()))
        })
        .await;
    let cpu_each = (cpu() - cpu_began) / asked.max(1);
    format!(
        "{:8.0} a second, {failed} of {asked} failed; {:6.1} us of CPU each: {:8.0} a second in one core",
        f64::from(asked) / began.elapsed().as_secs_f64(),
        cpu_each.as_secs_f64() * 1e6,
        1.0 / cpu_each.as_secs_f64(),
    )
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
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any_port.into()).expect("a free port");
    // Connections that are reset wait in the queue, too, until they are accepted.
    socket.listen(4096).expect("a queue");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
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
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let mut connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
    let mut secured = Stream::new(&mut connection, &mut stream);
    if secured.read(&mut [0; 4096]).is_ok() && secured.write_all(ANSWER).is_ok() {
        wait(stream);
    }
}

/// A server's configuration, and the certificate to trust.
fn tls() -> (Arc<ServerConfig>, Arc<[u8]>) {
    let own = rcgen::generate_simple_self_signed(["web.example".to_owned()]).expect("a key");
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a certificate");
    (Arc::new(config), own.cert.pem().into_bytes().into())
}
