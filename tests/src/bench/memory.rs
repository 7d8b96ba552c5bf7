//! What the flow table takes in memory, and whether a million exceptions find a place in it.

use anyhow::Result;
use lb_common::abi::{FlowEntry, FlowOrigin, map_name};
use lb_lab::datapath::kernel::LoadedDatapath;
use serde::Serialize;

use crate::facts;
use crate::generator::Generator;
use crate::scenario::{Family, MODES, Plan, Scenario};
use crate::situation::Situation;

/// A million, as the generator counts. Unit: flows.
const EXCEPTIONS: u32 = 1 << 20;
/// Sizes of the table: one and a half, and two times the exceptions. Unit: entries.
const ENTRY_COUNTS: [u32; 2] = [EXCEPTIONS / 2 * 3, EXCEPTIONS * 2];
/// What they may take, both stages, either family. Unit: bytes.
const TARGET_BYTES: u64 = 100_000_000;
/// SYNs and what follows them, four times.
const PASSES: u32 = 8;

/// A flow table with its exceptions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FlowTableMemory {
    /// Capacity.
    pub(crate) entries: u32,
    /// As the kernel accounts it.
    pub(crate) bytes: u64,
    /// Flows that were opened.
    pub(crate) flows: u32,
    /// How many of them are on record.
    pub(crate) recorded: u32,
}

/// Fills tables of either size.
pub(crate) fn measure(generator: &mut Generator) -> Result<Vec<FlowTableMemory>> {
    ENTRY_COUNTS
        .into_iter()
        .map(|entry_count| fill(generator, entry_count))
        .collect()
}

fn fill(generator: &mut Generator, entry_count: u32) -> Result<FlowTableMemory> {
    let mut scenario = Scenario::load(Plan {
        situation: Situation::Hit,
        entry_count,
        ..Plan::new(MODES[0], Family::V6, EXCEPTIONS)
    })?;
    scenario.establish(generator, PASSES)?;
    Ok(FlowTableMemory {
        entries: entry_count,
        bytes: map_bytes(&scenario.datapath)?,
        flows: EXCEPTIONS,
        recorded: scenario.flows.taken_count(),
    })
}

fn map_bytes(datapath: &LoadedDatapath) -> Result<u64> {
    let maps = facts::map_bytes(datapath)?;
    let is_flows = |name: &str| [map_name::FLOWS, map_name::FLOW_ORIGINS].contains(&name);
    let bytes = maps.iter().filter(|(name, _)| is_flows(name));
    Ok(bytes.map(|(_, bytes)| bytes).sum())
}

/// Prints them beside the target.
pub(crate) fn print(tables: &[FlowTableMemory]) {
    let (entry_bytes, origin_bytes) = (size_of::<FlowEntry>(), size_of::<FlowOrigin>());
    println!(
        "flow table: {entry_bytes} + {origin_bytes} = {} B an entry, IPv4 and IPv6 alike",
        entry_bytes + origin_bytes
    );
    for table in tables {
        println!(
            "  {:.2} M entries: {:.1} MB (target for {:.2} M flows: {} MB); {:.2} % of the flows are on record",
            f64::from(table.entries) / 1e6,
            table.bytes as f64 / 1e6,
            f64::from(table.flows) / 1e6,
            TARGET_BYTES / 1_000_000,
            100.0 * f64::from(table.recorded) / f64::from(table.flows)
        );
    }
}
