//! A packet filter on a machine of the laboratory: what reaches it, and what becomes of that.

use anyhow::Result;

use crate::netns::Netns;
use crate::process::run;

/// Has a rule of nftables judge what comes in, such as `tcp dport 80 drop`. One rule at a time.
pub fn close(netns: &Netns, rule: &str) -> Result<()> {
    run(netns.command("nft").arg(format!(
        "add table inet lab; \
         add chain inet lab input {{ type filter hook input priority 0; }}; \
         add rule inet lab input {rule}"
    )))?;
    Ok(())
}

/// Lets everything in again.
pub fn open(netns: &Netns) -> Result<()> {
    run(netns.command("nft").arg("delete table inet lab"))?;
    Ok(())
}
