//! The servers of the disruption proof: one process on each backend, so that it can be killed as a
//! process is.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::record::{DOWNLOAD_BURST_RECORDS, DOWNLOAD_INTERVAL, Kind, RECORD_LEN, Record, now_ns};
use crate::netns::Netns;
use crate::nginx::wait_listening;
use crate::process::Process;

/// Nobody holds a connection longer than this: the proof is over by then.
const CONNECTION_MAX: Duration = Duration::from_secs(3600);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Room for datagrams that wait for a busy server. Unit: bytes.
const UDP_BUFFER_BYTES: usize = 8 << 20;

/// What a server listens on.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ServerArgs {
    /// The number that it answers with
    #[arg(long)]
    pub number: u8,
    /// TCP ports, of every address
    #[arg(long, value_delimiter = ',')]
    pub tcp: Vec<u16>,
    /// UDP addresses with ports. Each is bound by itself, so that answers come from it
    #[arg(long, value_delimiter = ',')]
    pub udp: Vec<SocketAddr>,
}

impl ServerArgs {
    fn words(&self) -> Vec<String> {
        let tcp: Vec<String> = self.tcp.iter().map(u16::to_string).collect();
        let udp: Vec<String> = self.udp.iter().map(SocketAddr::to_string).collect();
        vec![
            "serve".to_owned(),
            format!("--number={}", self.number),
            format!("--tcp={}", tcp.join(",")),
            format!("--udp={}", udp.join(",")),
        ]
    }
}

/// Starts the program `lb-disruption` as a server in `netns`, and waits until it listens.
pub fn start(program: &Path, netns: &Netns, args: &ServerArgs, log: &Path) -> Result<Process> {
    let mut command = netns.command(program);
    command.args(args.words());
    let mut process = Process::spawn(&format!("server {}", args.number), command, log)?;
    wait_listening(&mut process, netns, &args.tcp)?;
    Ok(process)
}

/// Serves until the process is ended.
pub fn serve(args: &ServerArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // UDP first: who sees a TCP port open may use all of it.
        for address in &args.udp {
            let socket = UdpSocket::bind(address).await;
            let socket = socket.with_context(|| format!("cannot listen on {address}"))?;
            make_room(&socket)?;
            tokio::spawn(answer_datagrams(args.number, socket));
        }
        for port in &args.tcp {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            let listener = TcpListener::bind(any).await;
            let listener = listener.with_context(|| format!("cannot listen on port {port}"))?;
            // listen(2) once more changes the backlog, which tokio sets to 1024.
            // SAFETY: a system call on a descriptor that lives; it takes no pointer.
            let listening = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
            nix::errno::Errno::result(listening).context("cannot enlarge the backlog")?;
            tokio::spawn(accept(args.number, listener));
        }
        std::future::pending().await
    })
}

/// Room for datagrams beyond what the machine allows for others.
pub(super) fn make_room(socket: &UdpSocket) -> Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &UDP_BUFFER_BYTES)
        .context("cannot enlarge a UDP socket's buffer")
}

async fn answer_datagrams(number: u8, socket: UdpSocket) {
    let mut bytes = [0; RECORD_LEN + 1];
    loop {
        // An ICMP error that an earlier answer caused is no reason to stop.
        let Ok((length, client)) = socket.recv_from(&mut bytes).await else {
            continue;
        };
        if let Some(mut record) = Record::parse(&bytes[..length]) {
            record.server = number;
            let _gone = socket.send_to(&record.bytes(), client).await;
        }
    }
}

async fn accept(number: u8, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(timeout(
                CONNECTION_MAX,
                serve_connection(number, stream),
            ))),
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
}

/// Echoes records; the first one that asks for a download begins it.
async fn serve_connection(number: u8, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; RECORD_LEN];
    loop {
        stream.read_exact(&mut bytes).await?;
        let record = Record::parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        let answer = Record {
            server: number,
            ..record
        };
        match record.kind {
            Kind::Echo => stream.write_all(&answer.bytes()).await?,
            Kind::Download => return download(answer, stream).await,
        }
    }
}

/// Sends until the client is gone altogether. That it sends no more itself means nothing: half-closed
/// downloads are real.
async fn download(mut record: Record, mut stream: TcpStream) -> io::Result<()> {
    let mut ticks = interval_at(Instant::now(), DOWNLOAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut burst = Vec::with_capacity(DOWNLOAD_BURST_RECORDS * RECORD_LEN);
        for _ in 0..DOWNLOAD_BURST_RECORDS {
            record.sent_ns = now_ns();
            burst.extend(record.bytes());
            record.sequence += 1;
        }
        stream.write_all(&burst).await?;
    }
}
