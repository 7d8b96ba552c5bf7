//! What the kernel has: programs, addresses, and whether a machine answers.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::run;

/// How an interface runs XDP: `native` or `generic`, or nothing.
pub fn xdp_mode(netns: &Netns, interface: &str) -> Result<Option<&'static str>> {
    let links = netns.ip_json(&["link", "show", "dev", interface])?;
    // linux/if_link.h: XDP_ATTACHED_DRV = 1, XDP_ATTACHED_SKB = 2.
    Ok(match links[0]["xdp"]["mode"].as_u64() {
        None | Some(0) => None,
        Some(1) => Some("native"),
        Some(2) => Some("generic"),
        Some(mode) => anyhow::bail!("{interface} runs XDP in the unknown mode {mode}"),
    })
}

/// The kernel's id of the XDP program on an interface.
pub fn xdp_program(netns: &Netns, interface: &str) -> Result<Option<u64>> {
    let links = netns.ip_json(&["link", "show", "dev", interface])?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

/// The Ethernet address of an interface.
pub fn link_address(netns: &Netns, interface: &str) -> Result<[u8; 6]> {
    let links = netns.ip_json(&["link", "show", "dev", interface])?;
    let text = links[0]["address"].as_str().unwrap_or("");
    let mut bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let mut address = [0; 6];
    for byte in &mut address {
        let next = bytes
            .next()
            .with_context(|| format!("{interface}: address {text:?}"))?;
        *byte = next.with_context(|| format!("{interface}: address {text:?}"))?;
    }
    Ok(address)
}

/// An address on an interface: itself, and the length of its prefix.
pub type Address = (IpAddr, u64);

/// The addresses of an interface, without IPv6's link-local one.
pub fn addresses(netns: &Netns, interface: &str) -> Result<Vec<Address>> {
    let links = netns.ip_json(&["address", "show", "dev", interface])?;
    let entries = links[0]["addr_info"]
        .as_array()
        .context("`ip address` names no addresses")?;
    entries
        .iter()
        .filter(|entry| entry["scope"] != "link")
        .map(address)
        .collect()
}

fn address(entry: &Value) -> Result<Address> {
    let local = entry["local"].as_str().context("an address without text")?;
    let prefix_len = entry["prefixlen"].as_u64().context("no prefix length")?;
    Ok((local.parse()?, prefix_len))
}

/// Three echo requests to `address`, all of which must be answered.
pub fn ping(netns: &Netns, address: IpAddr) -> Result<()> {
    let mut ping = netns.command("ping");
    ping.args(["-n", "-q", "-c", "3", "-i", "0.05", "-w", "5"]);
    let report = run(ping.arg(address.to_string()))?;
    anyhow::ensure!(report.contains(" 3 received"), "{report}");
    Ok(())
}
