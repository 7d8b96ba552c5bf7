//! The copies of services that the packet path looks at first ([`ServiceLine`]).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use bytemuck::Zeroable;
use lb_common::abi::{EndpointKey, SERVICE_LINES, Service, ServiceLine};

use super::mapping::Mapping;

/// Where readers see a line's words in the order in which they are written. Elsewhere lines stay
/// empty, and packets find their services in the hash table.
const IS_ORDERED: bool = cfg!(target_arch = "x86_64");

const LINE_WORDS: usize = size_of::<ServiceLine>() / size_of::<u32>();
const SEQUENCE_WORD: usize = std::mem::offset_of!(ServiceLine, sequence) / size_of::<u32>();

/// `SERVICE_LINES` as memory.
pub(crate) struct ServiceLines {
    mapping: Mapping,
}

impl ServiceLines {
    /// Maps the array behind `fd`.
    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let mapping = Mapping::new(fd, SERVICE_LINES * size_of::<ServiceLine>())?;
        Ok(Self { mapping })
    }

    /// Copies a service into its line, unless another service's copy stands there. To be called
    /// after the entry in `SERVICES` was written.
    pub(crate) fn put(&mut self, key: &EndpointKey, service: &Service) {
        let line = self.line(key);
        let owner = line.read().key;
        if IS_ORDERED && (owner == *key || owner == EndpointKey::zeroed()) {
            line.write(key, service);
        }
    }

    /// Frees the service's line, if its copy stands there. To be called before the entry in
    /// `SERVICES` is deleted.
    pub(super) fn delete(&mut self, key: &EndpointKey) {
        let line = self.line(key);
        if line.read().key == *key {
            line.write(&EndpointKey::zeroed(), &Service::zeroed());
        }
    }

    /// Puts in order what a writer that was killed has left: a line in the middle of being written, a
    /// copy that is no longer true, a service without a copy. Returns the number of lines that were
    /// written.
    pub(super) fn repair(&mut self, services: &BTreeMap<EndpointKey, Service>) -> usize {
        let mut repaired = 0;
        for index in 0..SERVICE_LINES {
            let line = self.line_at(index);
            if !line.is_true(services) {
                line.write(&EndpointKey::zeroed(), &Service::zeroed());
                repaired += 1;
            }
        }
        for (key, service) in services {
            if IS_ORDERED && self.line(key).read().key == EndpointKey::zeroed() {
                self.put(key, service);
                repaired += 1;
            }
        }
        repaired
    }

    fn line(&mut self, key: &EndpointKey) -> Line<'_> {
        self.line_at(ServiceLine::index(key) as usize)
    }

    fn line_at(&mut self, index: usize) -> Line<'_> {
        assert!(index < SERVICE_LINES);
        let lines = self.mapping.address().cast::<[AtomicU32; LINE_WORDS]>();
        // SAFETY: the index is below the number of lines, which are mapped and 64-byte aligned, and
        // all access to them is atomic: here, and a word at a time in the packet path.
        Line(unsafe { NonNull::add(lines, index).as_ref() })
    }
}

/// One line, word by word.
struct Line<'a>(&'a [AtomicU32; LINE_WORDS]);

impl Line<'_> {
    fn read(&self) -> ServiceLine {
        bytemuck::cast(std::array::from_fn::<u32, LINE_WORDS, _>(|word| {
            self.0[word].load(Ordering::Relaxed)
        }))
    }

    /// Whether it says what is so: nothing, or a copy of a service, and not half written.
    fn is_true(&self, services: &BTreeMap<EndpointKey, Service>) -> bool {
        let line = self.read();
        let is_free = line.key == EndpointKey::zeroed();
        let is_copy = services.get(&line.key) == Some(&line.service);
        (is_free || is_copy) && line.sequence.is_multiple_of(2)
    }

    /// Writes under an odd sequence number.
    fn write(&self, key: &EndpointKey, service: &Service) {
        let sequence = &self.0[SEQUENCE_WORD];
        let begun = sequence.load(Ordering::Relaxed) | 1;
        let line = ServiceLine {
            key: *key,
            service: *service,
            sequence: begun,
            reserved: [0; 5],
        };
        let words: [u32; LINE_WORDS] = bytemuck::cast(line);
        sequence.store(begun, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for (target, word) in self.0.iter().zip(words) {
            target.store(word, Ordering::Relaxed);
        }
        sequence.store(begun.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_line_is_written_under_an_odd_sequence_and_read_back() {
        let words: [AtomicU32; LINE_WORDS] = std::array::from_fn(|_| AtomicU32::new(0));
        let line = Line(&words);
        let key = EndpointKey::new(IpAddr::from([203, 0, 113, 10]).into(), 80_u16.to_be(), 6);
        let service = Service {
            id: 7,
            ring_len: 3,
            ..Service::zeroed()
        };
        line.write(&key, &service);
        let first = line.read();
        assert_eq!(
            (first.key, first.service, first.sequence),
            (key, service, 2)
        );
        line.write(
            &key,
            &Service {
                ring_len: 4,
                ..service
            },
        );
        assert_eq!((line.read().service.ring_len, line.read().sequence), (4, 4));
    }

    #[test]
    fn a_line_that_is_half_written_or_out_of_date_is_seen() {
        let words: [AtomicU32; LINE_WORDS] = std::array::from_fn(|_| AtomicU32::new(0));
        let line = Line(&words);
        let key = EndpointKey::new(IpAddr::from([203, 0, 113, 10]).into(), 80_u16.to_be(), 6);
        let service = Service {
            id: 7,
            ..Service::zeroed()
        };
        let services = BTreeMap::from([(key, service)]);
        assert!(line.is_true(&services), "nothing is true");
        line.write(&key, &service);
        assert!(line.is_true(&services));
        assert!(!line.is_true(&BTreeMap::new()), "the service has gone");
        words[SEQUENCE_WORD].store(3, Ordering::Relaxed);
        assert!(!line.is_true(&services), "half written");
        line.write(&EndpointKey::zeroed(), &Service::zeroed());
        assert!(line.is_true(&BTreeMap::new()));
    }
}
