//! The kernel's packet generator, driven through `/proc/net/pktgen`
//! (Documentation/networking/pktgen.rst).
//!
//! It sends UDP only. A frame's flow is a random source address and a random source port; both upper
//! bounds are exclusive. Over IPv6 the source address stays, and the port alone makes the flow.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_common::bench::FRAME_WORDS;
use lb_lab::Netns;

use super::source::Sent;
use super::wire::SENDER_END;
use crate::generator::Traffic;

/// Of the calling thread's namespace: each has its own control files and its own kernel threads.
const DIRECTORY: &str = "/proc/thread-self/net/pktgen";

/// The first source port, and how many there are to a source address: those of the programs that
/// write frames here, so that either way the flows are the same.
const SOURCE_PORT_MIN: u32 = 1024;
const PORTS_PER_ADDRESS: u32 = 1024;

/// The most flows that source ports alone make, a power of two. Unit: flows.
const FLOWS_OF_ONE_ADDRESS_MAX: u32 = 32_768;

/// Whether the running kernel has it, loaded or built in.
pub(crate) fn is_present() -> bool {
    Path::new(DIRECTORY).is_dir()
}

/// The flows that it can make of `traffic`.
pub(crate) fn flow_count(traffic: &Traffic) -> u32 {
    match traffic.frame.source {
        IpAddr::V4(_) => traffic.flow_count,
        IpAddr::V6(_) => traffic.flow_count.min(FLOWS_OF_ONE_ADDRESS_MAX),
    }
}

/// Sends `frame_count` frames out of the sender's end, from the kernel thread of `cpu`.
pub(crate) fn send(netns: &Netns, cpu: usize, traffic: &Traffic, frame_count: u32) -> Result<Sent> {
    netns.run(|| send_here(cpu, traffic, frame_count))?
}

fn send_here(cpu: usize, traffic: &Traffic, frame_count: u32) -> Result<Sent> {
    let thread = Path::new(DIRECTORY).join(format!("kpktgend_{cpu}"));
    let device = Path::new(DIRECTORY).join(SENDER_END);
    command(&thread, "rem_device_all")?;
    command(&thread, &format!("add_device {SENDER_END}"))?;
    for line in device_commands(traffic, frame_count)? {
        command(&device, &line)?;
    }
    // Blocks until all is sent.
    command(&Path::new(DIRECTORY).join("pgctrl"), "start")?;
    let status = read(&device)?;
    command(&thread, "rem_device_all")?;
    parse_status(&status)
        .with_context(|| format!("{} does not say how it went:\n{status}", device.display()))
}

/// A control file takes one command with each write, and answers a bad one with an error, and with
/// a word on it when it is read.
fn command(file: &Path, line: &str) -> Result<()> {
    let Err(error) = fs::write(file, format!("{line}\n")) else {
        return Ok(());
    };
    let answer = fs::read_to_string(file).unwrap_or_default();
    let answer = answer.lines().last().unwrap_or("no answer").trim();
    bail!(
        "pktgen refused `{line}` for {}: {error} ({answer})",
        file.display()
    )
}

fn read(file: &PathBuf) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// What makes a device send these frames.
fn device_commands(traffic: &Traffic, frame_count: u32) -> Result<Vec<String>> {
    let frame = &traffic.frame;
    let flow_count = flow_count(traffic);
    let to_mac = frame.to_mac.map(|octet| format!("{octet:02x}")).join(":");
    let mut commands = vec![
        format!("count {frame_count}"),
        // A veth keeps what it is given, so no frame can be sent twice.
        "clone_skb 0".to_owned(),
        "delay 0".to_owned(),
        format!("pkt_size {}", FRAME_WORDS * size_of::<u64>()),
        format!("dst_mac {to_mac}"),
        format!("udp_dst_min {}", frame.destination_port),
        format!("udp_dst_max {}", frame.destination_port),
        format!("udp_src_min {SOURCE_PORT_MIN}"),
    ];
    let port_count = match (frame.source, frame.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let port_count = flow_count.min(PORTS_PER_ADDRESS);
            let past_last = (u32::from(source) + flow_count / port_count).into();
            let past_last: std::net::Ipv4Addr = past_last;
            commands.extend([
                format!("dst_min {destination}"),
                format!("dst_max {destination}"),
                format!("src_min {source}"),
                format!("src_max {past_last}"),
                "flag IPSRC_RND".to_owned(),
            ]);
            port_count
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            commands.extend([format!("dst6 {destination}"), format!("src6 {source}")]);
            flow_count
        }
        (source, destination) => bail!("one family a frame: {source} to {destination}"),
    };
    commands.extend([
        format!("udp_src_max {}", SOURCE_PORT_MIN + port_count),
        "flag UDPSRC_RND".to_owned(),
    ]);
    Ok(commands)
}

/// The device's file after a run. What is looked for (net/core/pktgen.c, `pktgen_if_show` and
/// `show_results`):
/// ```text
///      pkts-sofar: 65536  errors: 3
/// Result: OK: 481253(c480011+d1242) usec, 65536 (96byte,0frags)
/// ```
/// A frame that the device refused for good is counted as an error only; it was offered as well.
fn parse_status(status: &str) -> Option<Sent> {
    let number_after = |label: &str| -> Option<u64> {
        let (_, rest) = status.split_once(label)?;
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    };
    let elapsed = Duration::from_micros(number_after("Result: OK:")?);
    Some(Sent {
        frame_count: number_after("pkts-sofar:")? + number_after("errors:")?,
        elapsed,
    })
}

#[cfg(test)]
mod tests {
    use lb_lab::datapath::frame::{Frame, Transport};

    use super::*;

    fn traffic(client: &str, vip: &str, flow_count: u32) -> Traffic {
        let (client, vip) = (client.parse().unwrap(), vip.parse().unwrap());
        Traffic {
            frame: Frame::new(client, 1024, vip, 80, Transport::Udp),
            flow_count,
        }
    }

    fn has(commands: &[String], line: &str) -> bool {
        commands.iter().any(|command| command == line)
    }

    #[test]
    fn ipv4_flows_are_addresses_times_ports_with_exclusive_ends() {
        let traffic = traffic("10.64.0.1", "203.0.113.10", 65_536);
        let commands = device_commands(&traffic, 4096).unwrap();
        for line in [
            "count 4096",
            "pkt_size 96",
            "dst_mac 02:00:00:00:00:01",
            "dst_min 203.0.113.10",
            "src_min 10.64.0.1",
            "src_max 10.64.0.65",
            "udp_src_min 1024",
            "udp_src_max 2048",
            "udp_dst_max 80",
        ] {
            assert!(has(&commands, line), "{line} is not in {commands:?}");
        }
    }

    #[test]
    fn few_flows_are_ports_of_one_address() {
        let traffic = traffic("10.64.0.1", "203.0.113.10", 4);
        let commands = device_commands(&traffic, 1024).unwrap();
        assert!(has(&commands, "src_max 10.64.0.2"), "{commands:?}");
        assert!(has(&commands, "udp_src_max 1028"), "{commands:?}");
    }

    #[test]
    fn ipv6_flows_are_ports_and_never_more_than_there_are() {
        let traffic = traffic("2001:db8:c::1", "2001:db8:113::10", 65_536);
        assert_eq!(flow_count(&traffic), 32_768);
        let commands = device_commands(&traffic, 1024).unwrap();
        assert!(has(&commands, "dst6 2001:db8:113::10"), "{commands:?}");
        assert!(has(&commands, "udp_src_max 33792"), "{commands:?}");
        assert!(!commands.iter().any(|line| line.starts_with("src_m")));
    }

    #[test]
    fn refused_frames_count_as_offered() {
        let status = "\
Params: count 65536  min_pkt_size: 96  max_pkt_size: 96
Current:
     pkts-sofar: 65536  errors: 3
     started: 1000us  stopped: 482253us idle: 1242us
Result: OK: 481253(c480011+d1242) usec, 65536 (96byte,0frags)
  136177pps 104Mb/sec (104583936bps) errors: 3
";
        let sent = parse_status(status).unwrap();
        assert_eq!(sent.frame_count, 65_539);
        assert_eq!(sent.elapsed, Duration::from_micros(481_253));
    }

    #[test]
    fn a_run_that_did_not_end_well_is_no_result() {
        let status = "     pkts-sofar: 10  errors: 0\nResult: Idle\n";
        assert_eq!(parse_status(status), None);
    }
}
