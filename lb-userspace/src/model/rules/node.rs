use std::collections::HashMap;

use lb_common::limits::{BACKEND_ID_MAX, SERVICE_ID_MAX};

use super::{Findings, Number, named, names};
use crate::model::Section;
use crate::model::draft::{Draft, HooksDraft, LimitsDraft};
use crate::model::problem::{Kind, Problem};

/// Blocks of ring storage: enough for the largest ring twice over (a ring is written into spare
/// blocks before the old ones are free), to 4 GiB. Unit: blocks of 64 KiB.
const RING_BLOCKS_RANGE: (i64, i64) = (8, 65_536);

/// Flows: from a table that a test can fill to about 6 GiB. Unit: entries.
const FLOWS_RANGE: (i64, i64) = (1_024, 67_108_864);

/// How long a hook may take: those that come after it wait. Unit: seconds.
const HOOK_TIMEOUT_RANGE: (i64, i64) = (1, 300);

/// Checks what belongs to the node as a whole: its name, interfaces, limits and hooks.
pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    findings.require(&draft.node, Section::Node, "name", "node");
    names::check(&draft.node, Section::Node.key("name"), "node", findings);
    check_interfaces(draft, findings);
    check_limits(&draft.limits, findings);
    check_hooks(&draft.hooks, findings);
}

fn check_interfaces(draft: &Draft, findings: &mut Findings) {
    let mut first_with = HashMap::new();
    for (index, interface) in draft.interfaces.iter().enumerate() {
        let section = Section::Interface(index);
        let subject = named("interface", interface.name.given(), index);
        findings.require(&interface.name, section, "name", &subject);
        let Some(name) = interface.name.given() else {
            continue;
        };
        let place = section.key("name");
        names::check_interface(name, place, &subject, findings);
        let first = *first_with.entry(name).or_insert(place);
        if first != place {
            let message = "is named twice";
            findings.push(Problem::new(Kind::Conflict, place, subject, message).against(first));
        }
    }
}

fn check_hooks(hooks: &HooksDraft, findings: &mut Findings) {
    let (low, high) = HOOK_TIMEOUT_RANGE;
    let number = Number {
        place: Section::Hooks.key("timeout"),
        subject: "hooks",
        noun: "timeout",
        unit: " seconds",
    };
    findings.range(hooks.timeout_s(), low..=high, number);
}

fn check_limits(limits: &LimitsDraft, findings: &mut Findings) {
    let entries = [
        (
            "services",
            limits.services(),
            (1, i64::from(SERVICE_ID_MAX)),
        ),
        (
            "backends",
            limits.backends(),
            (1, i64::from(BACKEND_ID_MAX)),
        ),
        ("ring_blocks", limits.ring_blocks(), RING_BLOCKS_RANGE),
        ("flows", limits.flows(), FLOWS_RANGE),
    ];
    for (key, value, (low, high)) in entries {
        let number = Number {
            place: Section::Limits.key(key),
            subject: "limits",
            noun: key,
            unit: "",
        };
        findings.range(value, low..=high, number);
    }
}
