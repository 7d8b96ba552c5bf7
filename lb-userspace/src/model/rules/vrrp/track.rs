//! What a group watches.

use lb_common::limits::SERVICE_BACKENDS_MAX;

use super::Subject;
use crate::model::Section;
use crate::model::draft::{Draft, TrackDraft};
use crate::model::problem::{Kind, Problem};
use crate::model::rules::{Findings, Number, names};
use crate::suggest::closest;

/// By how much a priority can fall: from 255 to 1.
const WEIGHT_RANGE: (i64, i64) = (1, 254);

/// A track under examination.
struct Watch<'a> {
    section: Section,
    name: String,
    track: &'a TrackDraft,
    subject: &'a Subject<'a>,
}

impl Watch<'_> {
    fn problem(&self, kind: Kind, key: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(kind, self.section.key(key), &self.name, message)
    }
}

pub(super) fn check(draft: &Draft, index: usize, subject: &Subject<'_>, findings: &mut Findings) {
    let tracks = &subject.group.tracks;
    for (position, track) in tracks.iter().enumerate() {
        let watch = Watch {
            section: Section::Track(index, position),
            name: format!("{}, track number {}", subject.name, position + 1),
            track,
            subject,
        };
        check_what(&watch, findings);
        check_interface(&watch, findings);
        check_service(draft, &watch, findings);
        check_numbers(&watch, findings);
        let what = |one: &TrackDraft| (one.interface.clone(), one.service.clone());
        let mut earlier = tracks[..position].iter();
        let is_something = track.interface.given().is_some() || track.service.given().is_some();
        if let Some(first) = earlier.position(|one| is_something && what(one) == what(track)) {
            let place = watch.section.whole();
            let message = "is tracked twice by the group";
            findings.push(
                Problem::new(Kind::Conflict, place, &watch.name, message)
                    .against(Section::Track(index, first).whole()),
            );
        }
    }
}

fn check_what(watch: &Watch<'_>, findings: &mut Findings) {
    let track = watch.track;
    let message = match (track.interface.is_written(), track.service.is_written()) {
        (true, false) | (false, true) => return,
        (false, false) => "it has neither `interface` nor `service`",
        (true, true) => "it has both `interface` and `service`",
    };
    let place = watch.section.whole();
    findings.push(
        Problem::new(Kind::Invalid, place, &watch.name, message)
            .help("write a [[vrrp.track]] for each thing to watch"),
    );
}

fn check_interface(watch: &Watch<'_>, findings: &mut Findings) {
    let Some(interface) = watch.track.interface.given() else {
        return;
    };
    let place = watch.section.key("interface");
    names::check_interface(interface, place, &watch.name, findings);
    if watch.track.live_backends.is_written() {
        let message = "live_backends is for a service";
        findings.push(watch.problem(Kind::Invalid, "live_backends", message));
    }
    if watch.subject.group.interface.given() == Some(interface) {
        let message = format!("{interface} is the group's own interface, which is watched anyway");
        findings.push(watch.problem(Kind::Warning, "interface", message));
    }
}

fn check_service(draft: &Draft, watch: &Watch<'_>, findings: &mut Findings) {
    let Some(name) = watch.track.service.given() else {
        return;
    };
    let mut services = draft.services.iter();
    let Some(service) = services.find(|one| one.name.given() == Some(name)) else {
        let known = draft.services.iter().filter_map(|one| one.name.given());
        let help = match closest(name, known.map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "a group watches services of the same file".to_owned(),
        };
        let message = format!("there is no service `{name}`");
        findings.push(watch.problem(Kind::Conflict, "service", message).help(help));
        return;
    };
    let count = service.backends.len();
    let wanted = watch.track.live_backends();
    if let Some(wanted) = wanted.filter(|wanted| i64::try_from(count).is_ok_and(|n| n < *wanted)) {
        let message = format!("service `{name}` has {count} backends, and {wanted} shall be live");
        findings.push(watch.problem(Kind::Warning, "live_backends", message));
    }
}

fn check_numbers(watch: &Watch<'_>, findings: &mut Findings) {
    let backends_max = i64::try_from(SERVICE_BACKENDS_MAX).unwrap_or(i64::MAX);
    let numbers = [
        ("weight", watch.track.weight.given().copied(), WEIGHT_RANGE),
        (
            "live_backends",
            watch.track.live_backends(),
            (1, backends_max),
        ),
    ];
    for (key, value, (low, high)) in numbers {
        let number = Number {
            place: watch.section.key(key),
            subject: &watch.name,
            noun: key,
            unit: "",
        };
        findings.range(value, low..=high, number);
    }
}
