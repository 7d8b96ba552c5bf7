//! tshark as the judge of checksums, and of the numbers in TCP segments.
//!
//! A packet that its own machine has just sent may carry half a checksum and be right; so captures are
//! taken where packets have crossed a port without checksum offload, such as the balancer's interfaces.

use std::fs;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::process::{Process, run};
use crate::scratch::ScratchDir;
use crate::wait::wait_until;

/// How long tshark may take to begin and to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// tshark's word for a bad checksum in `*.checksum.status`; 1 is good, 2 unverified, 3 not present.
const STATUS_BAD: &str = "0";
const STATUS_GOOD: &str = "1";

/// tshark's field of a TCP checksum that is right but for being written as 0xffff, ones' complement's other
/// zero. tshark calls it bad; whoever adds it up finds it right, and Linux writes it for TCP too
/// (`skb_checksum_help()` with its `CSUM_MANGLED_0`), once in 65,536 segments.
const OTHER_ZERO_FIELD: &str = "tcp.checksum.ffff";

/// What tshark prints of each packet; the checksums' states are the last three.
const FIELDS: [&str; 5] = [
    "_ws.col.Info",
    OTHER_ZERO_FIELD,
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
];

/// What tshark prints of each TCP segment.
const SEGMENT_FIELDS: [&str; 6] = [
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags.reset",
    "tcp.len",
];

/// What tshark prints of each packet that is TCP over either family.
const REACH_FIELDS: [&str; 5] = [
    "ip.ttl",
    "ipv6.hlim",
    "tcp.flags.reset",
    OTHER_ZERO_FIELD,
    "tcp.checksum.status",
];

/// A capture under way. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
    _scratch: ScratchDir,
}

/// What tshark found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// Packets with at least one checksum, all of them good.
    pub good_count: usize,
    /// The packets with a bad checksum, as tshark describes them.
    pub bad: Vec<String>,
}

/// How far a packet may go, and what its TCP says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// TTL or hop limit.
    pub hops: u8,
    /// Whether it is a RST.
    pub is_reset: bool,
    /// Whether its TCP checksum is right.
    pub is_sound: bool,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its source port.
    pub source_port: u16,
    /// Its destination port.
    pub destination_port: u16,
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges; 0 if it has no ACK flag.
    pub acknowledged: u32,
    /// Whether it is a RST.
    pub is_reset: bool,
    /// Its data. Unit: bytes.
    pub len_bytes: u32,
}

impl Capture {
    /// Starts to capture what matches `filter` (pcap-filter(7)) on an interface.
    pub fn start(netns: &Netns, interface: &str, filter: &str) -> Result<Self> {
        let scratch = ScratchDir::new("capture")?;
        let file = scratch.path().join("packets.pcapng");
        let mut command = netns.command("tshark");
        command
            .args(["-n", "-i", interface, "-f", filter, "-w"])
            .arg(&file);
        let mut process = Process::spawn("tshark", command, &scratch.path().join("log"))?;
        // The file's header is written once the interface is open.
        process.wait_ready(TIMEOUT, || {
            Ok(fs::metadata(&file).is_ok_and(|file| file.len() > 0))
        })?;
        Ok(Self {
            process,
            file,
            _scratch: scratch,
        })
    }

    /// Waits for at least `packet_count` packets, ends the capture, and has every checksum in it
    /// verified.
    pub fn checksums(self, packet_count: usize) -> Result<Checksums> {
        let checks = ["ip", "tcp", "udp"].map(|protocol| format!("{protocol}.check_checksum:TRUE"));
        let options: Vec<&str> = checks.iter().map(String::as_str).collect();
        parse(&self.fields(packet_count, &options, &FIELDS)?)
    }

    /// Waits for at least `packet_count` packets, ends the capture, and returns the TCP segments in it.
    pub fn segments(self, packet_count: usize) -> Result<Vec<Segment>> {
        let text = self.fields(packet_count, &[], &SEGMENT_FIELDS)?;
        text.lines().map(parse_segment).collect()
    }

    /// Waits for at least `packet_count` packets, ends the capture, and returns how far the TCP segments in it
    /// may go.
    pub fn reaches(self, packet_count: usize) -> Result<Vec<Reach>> {
        let options = ["tcp.check_checksum:TRUE"];
        let text = self.fields(packet_count, &options, &REACH_FIELDS)?;
        text.lines().map(parse_reach).collect()
    }

    /// Waits for at least `packet_count` packets, ends the capture, and has tshark print fields of each
    /// packet. tshark forgets what it has not yet written when it ends, hence the wait.
    fn fields(mut self, packet_count: usize, options: &[&str], fields: &[&str]) -> Result<String> {
        wait_until(&format!("{packet_count} captured packets"), TIMEOUT, || {
            let captured = fs::read(&self.file).context("cannot read the capture")?;
            Ok((count_packets(&captured) >= packet_count).then_some(()))
        })?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(TIMEOUT)?;
        let mut tshark = Command::new("tshark");
        tshark.arg("-n").arg("-r").arg(&self.file);
        // Segments of one stream are not to be put together: each line stands for one packet.
        for option in options.iter().chain(&["tcp.desegment_tcp_streams:FALSE"]) {
            tshark.args(["-o", option]);
        }
        tshark.args(["-T", "fields", "-E", "occurrence=f"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        run(&mut tshark)
    }
}

/// The packets in a pcapng file, which may lack its end: blocks of (type, length, …), each of type 6
/// holding a packet (draft-ietf-opsawg-pcapng, section 4.3). dumpcap writes in the machine's byte order.
fn count_packets(mut file: &[u8]) -> usize {
    const ENHANCED_PACKET_BLOCK: u32 = 6;
    const BLOCK_LEN_MIN: usize = 12;
    let mut count = 0;
    while let [t0, t1, t2, t3, l0, l1, l2, l3, ..] = *file {
        let kind = u32::from_ne_bytes([t0, t1, t2, t3]);
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        match file.get(length.max(BLOCK_LEN_MIN)..) {
            Some(rest) => file = rest,
            None => break,
        }
        count += usize::from(kind == ENHANCED_PACKET_BLOCK);
    }
    count
}

fn parse(text: &str) -> Result<Checksums> {
    let mut found = Checksums::default();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [info, other_zero, ip, tcp, udp] = cells[..] else {
            bail!("tshark printed {} fields: {line:?}", cells.len());
        };
        let states = [ip, tcp_status(other_zero, tcp), udp];
        if states.contains(&STATUS_BAD) {
            found.bad.push(info.to_owned());
        } else if states.contains(&STATUS_GOOD) {
            found.good_count += 1;
        }
    }
    Ok(found)
}

/// The state of a TCP checksum, whichever zero it is written as.
fn tcp_status<'a>(other_zero: &str, status: &'a str) -> &'a str {
    if other_zero.is_empty() {
        status
    } else {
        STATUS_GOOD
    }
}

fn parse_segment(line: &str) -> Result<Segment> {
    let cells: Vec<&str> = line.split('\t').collect();
    let [
        source_port,
        destination_port,
        sequence,
        acknowledged,
        reset,
        len_bytes,
    ] = cells[..]
    else {
        bail!("tshark printed {} fields: {line:?}", cells.len());
    };
    let parse = || -> Result<Segment, ParseIntError> {
        Ok(Segment {
            source_port: source_port.parse()?,
            destination_port: destination_port.parse()?,
            sequence: sequence.parse()?,
            acknowledged: acknowledged.parse()?,
            // Some versions write a flag as a number, others as a word.
            is_reset: matches!(reset, "1" | "True"),
            len_bytes: len_bytes.parse()?,
        })
    };
    parse().with_context(|| format!("tshark printed no TCP segment: {line:?}"))
}

fn parse_reach(line: &str) -> Result<Reach> {
    let cells: Vec<&str> = line.split('\t').collect();
    let [v4, v6, reset, other_zero, checksum] = cells[..] else {
        bail!("tshark printed {} fields: {line:?}", cells.len());
    };
    let hops = if v4.is_empty() { v6 } else { v4 };
    let hops = hops.parse();
    Ok(Reach {
        hops: hops.with_context(|| format!("tshark printed no TTL: {line:?}"))?,
        is_reset: matches!(reset, "1" | "True"),
        is_sound: tcp_status(other_zero, checksum) == STATUS_GOOD,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_are_of_either_family() {
        let reach = |hops, is_reset, is_sound| Reach {
            hops,
            is_reset,
            is_sound,
        };
        assert_eq!(parse_reach("2\t\t1\t\t1").unwrap(), reach(2, true, true));
        assert_eq!(
            parse_reach("\t64\tFalse\t\t0").unwrap(),
            reach(64, false, false)
        );
        assert_eq!(
            parse_reach("2\t\t1\tffff\t0").unwrap(),
            reach(2, true, true)
        );
        assert!(parse_reach("\t\t0\t\t1").is_err());
    }

    #[test]
    fn segments_have_their_numbers() {
        let segment = parse_segment("80\t40000\t4294967295\t0\t1\t0").unwrap();
        let expected = Segment {
            source_port: 80,
            destination_port: 40_000,
            sequence: u32::MAX,
            acknowledged: 0,
            is_reset: true,
            len_bytes: 0,
        };
        assert_eq!(segment, expected);
        assert!(!parse_segment("1\t2\t3\t4\t0\t5").unwrap().is_reset);
        assert!(parse_segment("80\t40000").is_err());
        assert!(parse_segment("\t\t\t\t\t").is_err());
    }

    #[test]
    fn packets_are_counted_up_to_a_block_cut_short() {
        let block = |kind: u32, length: u32| [kind.to_ne_bytes(), length.to_ne_bytes()].concat();
        let mut file = [block(0x0a0d_0d0a, 16), vec![0; 8]].concat();
        file.extend(
            [
                block(6, 12),
                vec![0; 4],
                block(6, 12),
                vec![0; 4],
                block(6, 64),
            ]
            .concat(),
        );
        assert_eq!(count_packets(&file), 2);
        assert_eq!(count_packets(&[]), 0);
    }

    #[test]
    fn one_bad_checksum_makes_a_packet_bad() {
        let text = "80 → 5 [SYN]\t\t1\t1\t\n80 → 5 [ACK]\t\t1\t0\t\nquery\t\t\t\t1\nARP\t\t\t\t\n";
        let expected = Checksums {
            good_count: 2,
            bad: vec!["80 → 5 [ACK]".to_owned()],
        };
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("no fields").is_err());
    }

    #[test]
    fn checksum_of_all_ones_is_another_zero() {
        let text = "80 → 5 [SYN]\tffff\t1\t0\t\n80 → 5 [SYN]\tffff\t0\t0\t\n";
        let found = parse(text).unwrap();
        assert_eq!((found.good_count, found.bad.len()), (1, 1), "{found:?}");
    }
}
