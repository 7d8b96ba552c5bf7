//! Flows on record, and rings on their way.

use std::collections::BTreeMap;

use lb_common::abi::map_name;

use super::families::Families;
use crate::engine::snapshot::Snapshot;
use crate::engine::views::{FlowCounts, FlowQuery};
use crate::engine::{EngineError, EngineHandle};

/// Flows are counted in tables up to this size: to walk over one takes the engine some milliseconds, in which
/// it does nothing else. Unit: entries.
pub(super) const COUNTED_ENTRIES_MAX: u32 = 1 << 20;

/// By service.
pub(super) type OnRecord = BTreeMap<String, FlowCounts>;

/// The flows on record; of a table that is too large to be counted, nothing.
///
/// # Errors
/// The engine has stopped.
pub(super) async fn on_record(
    engine: &EngineHandle,
    snapshot: &Snapshot,
) -> Result<OnRecord, EngineError> {
    let mut maps = snapshot.maps.iter();
    let is_small = |max| max <= COUNTED_ENTRIES_MAX;
    let mut by_service = OnRecord::new();
    if !maps.any(|map| map.map == map_name::FLOWS && is_small(map.max)) {
        return Ok(by_service);
    }
    let view = engine.flows(FlowQuery::default()).await?;
    for backend in view.counts {
        let sum = by_service.entry(backend.service).or_default();
        sum.half_open_count += backend.counts.half_open_count;
        sum.established_count += backend.counts.established_count;
        sum.closing_count += backend.counts.closing_count;
    }
    Ok(by_service)
}

pub(super) fn flows(on_record: &OnRecord, families: &mut Families) {
    let help =
        "Live flows on record; settled slots of maglev TCP services keep no record of theirs";
    let mut flows = families.gauge("lbd_service_flows", help);
    for (service, counts) in on_record {
        for (state, count) in [
            ("half_open", counts.half_open_count),
            ("established", counts.established_count),
            ("closing", counts.closing_count),
        ] {
            flows.count(&[("service", service), ("state", state)], count);
        }
    }
}

pub(super) fn rings(snapshot: &Snapshot, families: &mut Families) {
    let help = "Slots of a ring that follows changes slot by slot, by phase: settled, prepared for a change \
                (armed), changed (moving), with flows of other backends on record (quiet)";
    let mut slots = families.gauge("lbd_service_ring_phase_slots", help);
    for state in &snapshot.services {
        let Some(summary) = &state.phases else {
            continue;
        };
        for (phase, count) in [
            ("settled", summary.settled_count),
            ("armed", summary.armed_count),
            ("moving", summary.moving_count),
            ("quiet", summary.quiet_count),
        ] {
            let labels = [("service", state.service.name.as_str()), ("phase", phase)];
            slots.count(&labels, count as u64);
        }
    }
    let help =
        "Rings that were written since lbd began: of new services, and at each step of a change";
    families
        .counter("lbd_rings_written_total", help)
        .count(&[], snapshot.rings_written_count);
}
