//! Dictionaries in parts, and flows in other words.

use bytemuck::Zeroable as _;
use proptest::prelude::*;

use super::*;

/// A dictionary of one service with these backends: id, generation, port.
fn dictionary(service_id: u16, backends: &[(u16, u16, u16)]) -> Dictionary {
    let service = ServiceEndpoint {
        vip: IpAddr::from([203, 0, 113, 10]),
        port: 80,
        protocol: 6,
    };
    let backend = |(id, generation, port): &(u16, u16, u16)| {
        let endpoint = BackendEndpoint {
            service_id,
            generation: *generation,
            address: SocketAddr::from(([10, 0, 0, 1], *port)),
        };
        (*id, endpoint)
    };
    Dictionary {
        services: BTreeMap::from([(service_id, service)]),
        backends: backends.iter().map(backend).collect(),
    }
}

fn flow(service_id: u16, backend_id: u16, generation: u16) -> SharedFlow {
    SharedFlow {
        service_id,
        backend_id,
        generation,
        ..SharedFlow::zeroed()
    }
}

fn vocabulary(dictionary: Dictionary) -> Vocabulary {
    let mut vocabulary = Vocabulary::default();
    assert!(vocabulary.update(Arc::new(dictionary)));
    vocabulary
}

#[test]
fn a_dictionary_of_any_size_arrives_as_it_was_sent() {
    for count in [0, 1, 999, 1000, 1001, 65_535_u16] {
        let backends: Vec<_> = (1..=count).map(|id| (id, 1, id)).collect();
        let sent = dictionary(7, &backends);
        let frames = vocabulary(sent.clone()).frames();
        let mut assembly = Assembly::default();
        let (last, first) = frames.split_last().expect("at least one");
        for frame in first {
            assert!(frame.len() <= crate::sync::session::FRAME_MAX_BYTES);
            assert_eq!(assembly.take(frame), Ok(None));
        }
        assert_eq!(assembly.take(last), Ok(Some((1, sent))));
    }
}

#[test]
fn a_dictionary_with_a_part_missing_is_refused_and_the_next_whole_one_is_taken() {
    let backends: Vec<_> = (1..=2500).map(|id| (id, 1, id)).collect();
    let frames = vocabulary(dictionary(7, &backends)).frames();
    let mut assembly = Assembly::default();
    assert_eq!(assembly.take(&frames[0]), Ok(None));
    assert!(assembly.take(&frames[2]).is_err());
    assert!(assembly.take(&frames[1]).is_err());
    for frame in &frames[..2] {
        assert_eq!(assembly.take(frame), Ok(None));
    }
    assert!(assembly.take(&frames[2]).expect("whole").is_some());
}

#[test]
fn a_flow_is_told_in_the_words_of_the_other_node() {
    let theirs = dictionary(3, &[(1, 4, 8001), (2, 1, 8002), (9, 1, 8009)]);
    let ours = dictionary(5, &[(6, 2, 8002), (7, 8, 8001)]);
    let translation = Translation::new(&theirs, &ours);
    let told = SharedFlow {
        displaced_id: 2,
        displaced_generation: 1,
        sequence: 77,
        ..flow(3, 1, 4)
    };
    let taken = translation.flow(&told).expect("both have it");
    let expected = SharedFlow {
        displaced_id: 6,
        displaced_generation: 2,
        sequence: 77,
        ..flow(5, 7, 8)
    };
    assert_eq!(taken, expected);
    assert_eq!(
        translation.flow(&flow(3, 9, 1)),
        Err(Untranslatable::Stranger)
    );
    let none = Translation::new(&theirs, &Dictionary::default());
    assert_eq!(none.flow(&told), Err(Untranslatable::Unknown));
    for stale in [flow(3, 1, 3), flow(4, 1, 4), flow(3, 55, 1), flow(3, 0, 0)] {
        assert_eq!(translation.flow(&stale), Err(Untranslatable::Stale));
    }
    let of_another = SharedFlow {
        displaced_id: 2,
        displaced_generation: 9,
        ..told
    };
    assert_eq!(
        translation.flow(&of_another).expect("taken").displaced_id,
        0
    );
}

#[test]
fn a_flow_needs_the_version_in_which_its_backend_became_what_it_is() {
    let mut vocabulary = vocabulary(dictionary(7, &[(1, 1, 8001), (2, 1, 8002)]));
    let same = Arc::new(dictionary(7, &[(1, 1, 8001), (2, 1, 8002)]));
    assert!(!vocabulary.update(same), "nothing has changed");
    assert!(vocabulary.update(Arc::new(dictionary(7, &[(1, 1, 8001), (2, 2, 8003)]))));
    assert!(vocabulary.update(Arc::new(dictionary(
        7,
        &[(1, 1, 8001), (2, 2, 8003), (3, 1, 8004)]
    ))));
    assert_eq!(vocabulary.version(), 3);
    assert_eq!(vocabulary.needed(&flow(7, 1, 1)), Some(1));
    assert_eq!(vocabulary.needed(&flow(7, 2, 2)), Some(2));
    assert_eq!(vocabulary.needed(&flow(7, 3, 1)), Some(3));
    assert_eq!(vocabulary.needed(&flow(7, 2, 1)), None);
    assert_eq!(vocabulary.needed(&flow(7, 4, 1)), None);
}

proptest! {
    #[test]
    fn what_is_no_part_harms_nothing(payload in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut assembly = Assembly::default();
        let _ = assembly.take(&payload);
        let frames = vocabulary(dictionary(7, &[(1, 1, 8001)])).frames();
        prop_assert!(assembly.take(&frames[0]).expect("whole").is_some());
    }
}
