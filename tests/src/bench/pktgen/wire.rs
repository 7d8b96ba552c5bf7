//! The wire: a veth pair between two network namespaces, a native XDP program on either end.
//!
//! The sender's end needs one as much as the balancer's: what `XDP_TX` sends into a veth arrives
//! only where the peer has one.

use anyhow::{Context, Result};
use aya::programs::ProgramFd;
use lb_lab::{Netns, link};

use super::xdp_link::XdpLink;

/// The end that frames are sent from, and answered to.
pub(crate) const SENDER_END: &str = "sender0";
/// The end with the program under test.
const BALANCER_END: &str = "balancer0";

/// Two namespaces, joined. Dropping it deletes them.
pub(crate) struct Wire {
    /// Where frames come from.
    pub(crate) sender: Netns,
    balancer: Netns,
}

/// What the kernel counted on the two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireCounters {
    /// Frames that the balancer's end took in.
    pub(crate) received_count: u64,
    /// Frames from the sender that found the balancer's end full.
    pub(crate) lost_there_count: u64,
    /// Answers that found the sender's end full.
    pub(crate) lost_back_count: u64,
}

impl Wire {
    /// Creates the namespaces and the pair. IPv6 is off in them: a host's router solicitations would
    /// be counted with the frames.
    pub(crate) fn create() -> Result<Self> {
        let sender = Netns::create("sender")?;
        let balancer = Netns::create("balancer")?;
        for netns in [&sender, &balancer] {
            netns.sysctl(&[("net/ipv6/conf/default/disable_ipv6", "1")])?;
        }
        link::veth_pair((&sender, SENDER_END), (&balancer, BALANCER_END))?;
        Ok(Self { sender, balancer })
    }

    /// The index of the sender's end, in its namespace.
    pub(crate) fn sender_ifindex(&self) -> Result<u32> {
        self.sender.interface_index(SENDER_END)
    }

    /// The index of the balancer's end, in its namespace.
    pub(crate) fn balancer_ifindex(&self) -> Result<u32> {
        self.balancer.interface_index(BALANCER_END)
    }

    /// Attaches a program to the sender's end.
    pub(crate) fn attach_to_sender(&self, program: &ProgramFd) -> Result<XdpLink> {
        XdpLink::attach(&self.sender, SENDER_END, program)
    }

    /// Attaches a program to the balancer's end.
    pub(crate) fn attach_to_balancer(&self, program: &ProgramFd) -> Result<XdpLink> {
        XdpLink::attach(&self.balancer, BALANCER_END, program)
    }

    /// What was counted since the wire was made.
    pub(crate) fn counters(&self) -> Result<WireCounters> {
        let sender = device_counters(&self.sender, SENDER_END)?;
        let balancer = device_counters(&self.balancer, BALANCER_END)?;
        Ok(WireCounters {
            received_count: balancer.received_count,
            lost_there_count: sender.send_drop_count,
            lost_back_count: balancer.send_drop_count,
        })
    }
}

impl WireCounters {
    /// What was counted since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            received_count: self.received_count - before.received_count,
            lost_there_count: self.lost_there_count - before.lost_there_count,
            lost_back_count: self.lost_back_count - before.lost_back_count,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct DeviceCounters {
    received_count: u64,
    send_drop_count: u64,
}

fn device_counters(netns: &Netns, interface: &str) -> Result<DeviceCounters> {
    // `/proc/net` is the namespace of the process, not of the thread.
    let text = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let text = text.context("cannot read /proc/thread-self/net/dev")?;
    parse_device_counters(&text, interface).with_context(|| {
        format!("no counters of {interface} in /proc/thread-self/net/dev:\n{text}")
    })
}

/// A line: the name, eight columns of receiving, eight of sending (net/core/net-procfs.c).
fn parse_device_counters(text: &str, interface: &str) -> Option<DeviceCounters> {
    const RECEIVED_PACKETS: usize = 1;
    const SEND_DROPS: usize = 8 + 3;
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    let (_, columns) = lines.find(|(name, _)| *name == interface)?;
    let columns: Vec<u64> = columns
        .split_whitespace()
        .map_while(|column| column.parse().ok())
        .collect();
    Some(DeviceCounters {
        received_count: *columns.get(RECEIVED_PACKETS)?,
        send_drop_count: *columns.get(SEND_DROPS)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
balancer0: 960000   10000    1    2    3     4          5         6   480000    5000    7   42    8     9      10         11
";

    #[test]
    fn counters_are_found_by_the_interface_s_name() {
        let counters = parse_device_counters(TEXT, "balancer0");
        let expected = DeviceCounters {
            received_count: 10_000,
            send_drop_count: 42,
        };
        assert_eq!(counters, Some(expected));
        assert_eq!(parse_device_counters(TEXT, "balancer1"), None);
    }
}
