use std::collections::HashMap;
use std::ops::Range;

use crate::model::{Place, Section};

/// Where in the text the sections of a draft and their values are. Unit: bytes.
#[derive(Debug, Default)]
pub(super) struct Spans {
    sections: HashMap<Section, Range<usize>>,
    values: HashMap<Place, Range<usize>>,
}

impl Spans {
    /// Remembers where a section's header is.
    pub(super) fn put_section(&mut self, section: Section, span: Range<usize>) {
        self.sections.insert(section, span);
    }

    /// Remembers where a value is.
    pub(super) fn put_value(&mut self, place: Place, span: Range<usize>) {
        self.values.insert(place, span);
    }

    /// The span of a place: its value, else its section's header (a default was at fault), else
    /// none (it did not come from the file).
    pub(super) fn find(&self, place: Place) -> Option<Range<usize>> {
        let value = self.values.get(&place);
        value.or_else(|| self.sections.get(&place.section)).cloned()
    }
}
