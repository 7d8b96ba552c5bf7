//! Rules about `[[vrrp]]`: each group by itself, and against the others.

mod addresses;
mod between;
mod track;

use super::{Findings, Number, named, names};
use crate::model::Section;
use crate::model::cluster::{VRRP_GROUPS_MAX, VRRP_PRIORITY_OWNER, VRRP_TRACKS_MAX};
use crate::model::draft::{Draft, VrrpDraft};
use crate::model::problem::{Kind, Place, Problem};

/// RFC 9568 section 5.2.3.
const VRID_RANGE: (i64, i64) = (1, 255);

/// RFC 9568 section 5.2.4; 0 is said by one that resigns.
const PRIORITY_RANGE: (i64, i64) = (1, 255);

/// Advertisement intervals: 12 bits of centiseconds (RFC 9568 section 5.2.7). Unit: milliseconds.
const INTERVAL_RANGE: (i64, i64) = (10, 40_950);

/// A centisecond. Unit: milliseconds.
const CENTISECOND_MS: i64 = 10;

/// Off, to an hour. Unit: milliseconds.
const PREEMPT_DELAY_RANGE: (i64, i64) = (0, 3_600_000);

/// A group under examination.
struct Subject<'a> {
    section: Section,
    name: String,
    group: &'a VrrpDraft,
}

impl Subject<'_> {
    fn push(&self, findings: &mut Findings, kind: Kind, key: &'static str, message: String) {
        findings.push(self.problem(kind, key, message));
    }

    fn problem(&self, kind: Kind, key: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(kind, self.section.key(key), &self.name, message)
    }
}

/// Checks every group.
pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    let count = draft.vrrp.len();
    if count > VRRP_GROUPS_MAX {
        let message = format!("{count} groups, and there can be {VRRP_GROUPS_MAX}");
        let place = Section::Vrrp(VRRP_GROUPS_MAX).whole();
        findings.push(Problem::new(Kind::Invalid, place, "vrrp", message));
    }
    for (index, group) in draft.vrrp.iter().enumerate() {
        let subject = Subject {
            section: Section::Vrrp(index),
            name: group_subject(index, group),
            group,
        };
        check_required(&subject, findings);
        check_numbers(&subject, findings);
        check_owner(&subject, findings);
        check_authentication(draft, &subject, findings);
        check_interface(draft, &subject, findings);
        addresses::check(&subject, findings);
        check_tracks(draft, index, &subject, findings);
    }
    between::check(draft, findings);
}

/// ``vrrp group `web` ``, or its position where it has no name.
fn group_subject(index: usize, group: &VrrpDraft) -> String {
    named("vrrp group", group.name.given(), index)
}

fn check_required(subject: &Subject<'_>, findings: &mut Findings) {
    let Subject {
        section,
        name,
        group,
    } = subject;
    findings.require(&group.name, *section, "name", name);
    findings.require(&group.interface, *section, "interface", name);
    findings.require(&group.vrid, *section, "vrid", name);
    findings.require(&group.vips, *section, "vips", name);
    names::check(&group.name, section.key("name"), name, findings);
    if let Some(interface) = group.interface.given() {
        names::check_interface(interface, section.key("interface"), name, findings);
    }
}

fn check_numbers(subject: &Subject<'_>, findings: &mut Findings) {
    let group = subject.group;
    let numbers = [
        ("vrid", group.vrid.given().copied(), VRID_RANGE, ""),
        ("priority", group.priority(), PRIORITY_RANGE, ""),
        (
            "interval",
            group.interval_ms(),
            INTERVAL_RANGE,
            " milliseconds",
        ),
        (
            "preempt_delay",
            group.preempt_delay_ms(),
            PREEMPT_DELAY_RANGE,
            " milliseconds",
        ),
    ];
    for (key, value, (low, high), unit) in numbers {
        let number = Number {
            place: subject.section.key(key),
            subject: &subject.name,
            noun: key,
            unit,
        };
        findings.range(value, low..=high, number);
    }
    let (low, high) = INTERVAL_RANGE;
    let interval_ms = group.interval_ms();
    if let Some(ms) = interval_ms.filter(|ms| (low..=high).contains(ms) && ms % CENTISECOND_MS != 0)
    {
        let message = format!("interval {ms} ms is no whole number of centiseconds");
        let below = ms - ms % CENTISECOND_MS;
        let help = format!(
            "VRRP counts in 10 ms (RFC 9568 section 5.2.7): write {below}ms or {}ms",
            below + CENTISECOND_MS
        );
        findings.push(
            subject
                .problem(Kind::Invalid, "interval", message)
                .help(help),
        );
    }
    if group.preempt() == Some(false) && group.preempt_delay_ms.given().is_some_and(|ms| *ms > 0) {
        let message = "preempt_delay has no effect with preempt = false";
        findings.push(subject.problem(Kind::Warning, "preempt_delay", message));
    }
}

/// Who owns the addresses is Active whenever it can be (RFC 9568 sections 6.1 and 6.4.1).
fn check_owner(subject: &Subject<'_>, findings: &mut Findings) {
    let group = subject.group;
    if group.priority() != Some(i64::from(VRRP_PRIORITY_OWNER)) {
        return;
    }
    let priority = subject.section.key("priority");
    let refusals = [
        (
            "preempt",
            group.preempt() == Some(false),
            "preempts always: preempt = false",
        ),
        (
            "accept",
            group.accept() == Some(false),
            "accepts packets to them: accept = false",
        ),
    ];
    let owner = "priority 255 is for the owner of the addresses, who";
    for (key, is_refused, words) in refusals {
        if is_refused {
            let message = format!("{owner} {words} contradicts that");
            let problem = subject.problem(Kind::Conflict, key, message);
            findings.push(
                problem
                    .against(priority)
                    .help("set a priority of at most 254"),
            );
        }
    }
    for (position, track) in group.tracks.iter().enumerate() {
        if let (Section::Vrrp(index), Some(_)) = (subject.section, track.weight.given()) {
            let place = Section::Track(index, position).key("weight");
            let message = format!("{owner} never has a lower one: a weight contradicts that");
            let problem = Problem::new(Kind::Conflict, place, &subject.name, message);
            findings.push(problem.against(priority).help(
                "set a priority of at most 254, or leave the weight out: then the node gives the VIPs up",
            ));
        }
    }
    let message = "priority 255 says that the VIPs are this node's own addresses, here whether it is Active \
                   or not";
    findings.push(
        subject
            .problem(Kind::Warning, "priority", message)
            .help("for VIPs that move, 254 is the highest priority"),
    );
}

fn check_authentication(draft: &Draft, subject: &Subject<'_>, findings: &mut Findings) {
    if draft.cluster.is_none() && subject.group.authenticate.given() == Some(&true) {
        let message = "authenticate = true takes the secret of a [cluster], and there is none";
        findings.push(
            subject
                .problem(Kind::Conflict, "authenticate", message)
                .help("add [cluster] with listen and secret_file, or leave authenticate out"),
        );
    }
}

/// A VLAN's interface cannot have the datapath, its parent does; so this is no error.
fn check_interface(draft: &Draft, subject: &Subject<'_>, findings: &mut Findings) {
    let Some(name) = subject.group.interface.given() else {
        return;
    };
    let is_parent_of = |known: &str| {
        let rest = name.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut known = draft.interfaces.iter().filter_map(|one| one.name.given());
    if draft.interfaces.is_empty() || known.any(|known| is_parent_of(known)) {
        return;
    }
    let message =
        format!("the datapath is not attached to {name}: it sees no packet that comes in there");
    let help = "name it as an [[interface]], unless packets to the VIPs come in elsewhere";
    findings.push(
        subject
            .problem(Kind::Warning, "interface", message)
            .help(help),
    );
}

fn check_tracks(draft: &Draft, index: usize, subject: &Subject<'_>, findings: &mut Findings) {
    let count = subject.group.tracks.len();
    if count > VRRP_TRACKS_MAX {
        let message = format!("{count} tracks, and a group has at most {VRRP_TRACKS_MAX}");
        let place: Place = Section::Track(index, VRRP_TRACKS_MAX).whole();
        findings.push(Problem::new(Kind::Invalid, place, &subject.name, message));
    }
    track::check(draft, index, subject, findings);
}
