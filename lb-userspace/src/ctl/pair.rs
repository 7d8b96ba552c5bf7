//! `lbctl vip` and `lbctl peer`.

use std::io::Write;

use super::Failure;
use super::args::{PeerCommand, VipCommand};
use super::commands::Sink;
use super::pair_tables;
use crate::control::client::{Client, segment};
use crate::control::proto::{FailoverDone, Peers, Vips};

/// `lbctl vip`.
pub(super) async fn vip<W: Write>(
    client: &Client,
    command: VipCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        VipCommand::List { wide: true } => {
            let vips: Vips = client.get("/v1/vips").await?;
            sink.put(&vips, pair_tables::vips_wide)
        }
        VipCommand::List { wide: false } => {
            let vips: Vips = client.get("/v1/vips").await?;
            sink.put(&vips, pair_tables::vips)
        }
        VipCommand::Failover { group } => {
            let path = format!("/v1/vips/{}/failover", segment(&group));
            let done: FailoverDone = client.post(&path, &()).await?;
            sink.put(&done, pair_tables::failover)
        }
    }
}

/// `lbctl peer`.
pub(super) async fn peer<W: Write>(
    client: &Client,
    command: PeerCommand,
    sink: &mut Sink<'_, W>,
) -> Result<(), Failure> {
    match command {
        PeerCommand::Status => {
            let peers: Peers = client.get("/v1/peers").await?;
            sink.put(&peers, pair_tables::peers)
        }
    }
}
