//! Veth pairs, bridges, and the offload switches that matter to XDP.

use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::netns::Netns;
use crate::process::run;

/// Offloads of an interface that can be switched (linux/ethtool.h, the `ETHTOOL_S…` commands).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Offload {
    /// Leaving the checksum of a sent packet to the device.
    TxChecksum = 0x17,
    /// Leaving TCP segmentation to the device.
    TcpSegmentation = 0x1f,
    /// Segmentation in software just before the device.
    GenericSegmentation = 0x24,
    /// Merging received packets.
    GenericReceive = 0x2c,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Switch {
    /// Switched off.
    Off = 0,
    /// Switched on.
    On = 1,
}

/// One end of a veth pair: the namespace that it lies in, and its name there.
pub type End<'a> = (&'a Netns, &'a str);

/// Creates a veth pair between two namespaces, both ends up.
pub fn veth_pair((a, a_name): End<'_>, (b, b_name): End<'_>) -> Result<()> {
    // `name` and `dev` are spelled out: ip takes short names such as `a` for keywords.
    a.ip(&format!(
        "link add name {a_name} type veth peer name {b_name} netns {}\n\
         link set dev {a_name} up",
        b.name()
    ))?;
    b.ip(&format!("link set dev {b_name} up"))
}

/// What waits in front of an end of a veth pair before anything is lost. Unit: packets.
const QUEUE_PACKETS: u32 = 4096;

/// Gives `interface`, an end of a veth pair, a queue. A pair of which the other end has XDP attached has room for 256
/// packets, and drops what is more than that: hundreds of clients repeat their segments in the same moment after some
/// seconds of darkness (the kernel's timers of more than two seconds come together every 256 ms). Since Linux 6.16 it
/// makes a queue wait (commit dc82a33297fc); before, it drops nevertheless.
pub fn queue(netns: &Netns, interface: &str) -> Result<()> {
    let limit = QUEUE_PACKETS.to_string();
    let mut tc = netns.command("tc");
    tc.args([
        "qdisc", "replace", "dev", interface, "root", "pfifo", "limit",
    ]);
    run(tc.arg(limit)).map(drop)
}

/// Creates a bridge that forwards at once and to everyone.
pub fn bridge(netns: &Netns, name: &str) -> Result<()> {
    netns.ip(&format!(
        "link add name {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set dev {name} up"
    ))
}

/// Makes `port` a port of `bridge`.
pub fn add_port(netns: &Netns, bridge: &str, port: &str) -> Result<()> {
    netns.ip(&format!("link set dev {port} master {bridge}"))
}

/// The CPUs that the packets of new interfaces are spread over, by their flows (a mask in hexadecimal).
const RPS_DEFAULT_MASK: &str = "net/core/rps_default_mask";

/// Lets each flow's packets be handled by one CPU, on the interfaces that the namespace gets from here on, as the
/// queues of an Ethernet card do. On a veth pair the packets of a flow may otherwise overtake each other on two
/// CPUs; and while one of these handles the last segment of a handshake, the other does not find the
/// connection for the segment after it, and answers with RST (Linux: the lockless look-up in
/// `inet_ehash_insert` may miss a socket that takes the place of its request).
///
/// Before Linux 6.3 there is no such setting: then it stays as it is.
pub fn keep_flows_on_a_cpu(netns: &Netns) -> Result<()> {
    if !Path::new("/proc/sys").join(RPS_DEFAULT_MASK).exists() {
        return Ok(());
    }
    // A mask has at most 32 bits without a comma.
    let cpu_count = thread::available_parallelism().map_or(1, NonZero::get);
    let mask = u32::MAX >> (u32::BITS as usize - cpu_count.min(u32::BITS as usize));
    netns.sysctl(&[(RPS_DEFAULT_MASK, &format!("{mask:x}"))])
}

/// Switches an offload of an interface, as `ethtool -K` does.
pub fn set_offload(netns: &Netns, interface: &str, offload: Offload, switch: Switch) -> Result<()> {
    netns
        .run(|| ethtool_set(interface, offload as u32, switch as u32))?
        .with_context(|| format!("cannot switch {offload:?} {switch:?} on {interface}"))
}

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

fn ethtool_set(interface: &str, command: u32, data: u32) -> Result<()> {
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("cannot open a socket")?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: all-zero bytes are a valid `ifreq`: it holds integers, byte arrays and null pointers
    // only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    anyhow::ensure!(
        interface.len() < libc::IFNAMSIZ,
        "{interface:?} is too long for an interface"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a NUL-terminated interface and points to a live `ethtool_value`,
    // which is what SIOCETHTOOL reads for every command in `Offload`; both outlive the call.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(result).context("SIOCETHTOOL was refused")?;
    Ok(())
}
