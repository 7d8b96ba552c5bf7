//! How long a flow keeps its entry: seen by a SYN that wants it.

use lb_common::abi::{FLOW_SET_ENTRIES, FlowState};
use lb_common::datapath::life::untold_s;
use lb_common::limits::{FIN_LINGER_S, HALF_OPEN_TIMEOUT_S, RST_LINGER_S};

use crate::stage::{
    CURRENT, HALF_OPEN, IDLE_TIMEOUT_S, LEARNED, MOVING, OPEN, PREVIOUS, Stage, clients_of_one_set,
};

/// Entries of the set that are open and stay so.
const OTHERS: usize = FLOW_SET_ENTRIES - 1;

/// A set of seven connections, one more that `live` lives through, and then a SYN at each second: the
/// entry of that one is kept until `kept_until_s` and taken in the next second.
fn keeps_its_entry(live: impl Fn(&Stage, u32), kept_until_s: u32) {
    let clients: [u32; FLOW_SET_ENTRIES + 1] = clients_of_one_set();
    let (others, [subject, newcomer]) = clients.split_at(OTHERS) else {
        panic!("two more clients");
    };
    for (second, is_kept) in [(kept_until_s, true), (kept_until_s + 1, false)] {
        let stage = Stage::new(MOVING);
        for client in others {
            stage.at(0).open(*client);
        }
        live(&stage, *subject);
        for client in others {
            stage.at(second).ack(*client);
        }
        let expected = if is_kept { PREVIOUS } else { CURRENT };
        assert_eq!(stage.syn(*newcomer), expected, "at {second} s");
        assert_eq!(stage.entry(*newcomer).is_some(), !is_kept);
        assert_eq!(stage.entry(*subject).is_some(), is_kept);
        assert!(
            others
                .iter()
                .all(|client| stage.entry(*client) == Some((CURRENT, OPEN)))
        );
    }
}

#[test]
fn an_open_flow_stays_for_the_idle_timeout_from_its_last_packet_on() {
    keeps_its_entry(|stage, client| stage.open(client), IDLE_TIMEOUT_S);
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            stage.at(100).ack(client);
        },
        100 + IDLE_TIMEOUT_S,
    );
}

#[test]
fn a_learned_flow_stays_for_the_idle_timeout() {
    // Learned while the set still had room for it.
    let [first, rest @ ..]: [u32; FLOW_SET_ENTRIES + 1] = clients_of_one_set();
    let (others, [newcomer]) = rest.split_at(OTHERS) else {
        panic!("one more client");
    };
    for (second, entry) in [
        (IDLE_TIMEOUT_S, Some((PREVIOUS, LEARNED))),
        (IDLE_TIMEOUT_S + 1, None),
    ] {
        let stage = Stage::new(MOVING);
        assert_eq!(stage.at(0).ack(first), PREVIOUS);
        for client in others {
            stage.open(*client);
        }
        for client in others {
            stage.at(second).ack(*client);
        }
        stage.syn(*newcomer);
        assert_eq!(stage.entry(first), entry, "at {second} s");
    }
}

#[test]
fn an_orderly_end_lingers_from_each_packet_anew() {
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            assert_eq!(stage.at(10).fin(client), CURRENT);
        },
        10 + FIN_LINGER_S,
    );
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            stage.at(10).fin(client);
            assert_eq!(stage.at(50).ack(client), CURRENT);
            let closing = FlowState::FIN.with(FlowState::FIN_ACKED);
            assert_eq!(stage.entry(client), Some((CURRENT, closing)));
        },
        50 + FIN_LINGER_S,
    );
}

#[test]
fn a_half_closed_download_lives_as_long_as_an_open_flow() {
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            stage.at(10).fin(client);
            stage.at(11).ack(client);
            stage.at(12).ack(client);
        },
        12 + IDLE_TIMEOUT_S,
    );
}

#[test]
fn a_reset_lingers_shortly_and_not_at_all_if_the_client_goes_on() {
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            assert_eq!(stage.at(10).rst(client), CURRENT);
            assert_eq!(stage.entry(client), Some((CURRENT, FlowState::RST)));
        },
        10 + RST_LINGER_S,
    );
    keeps_its_entry(
        |stage, client| {
            stage.open(client);
            stage.at(10).rst(client);
            assert_eq!(stage.at(12).ack(client), CURRENT);
            assert_eq!(stage.entry(client), Some((CURRENT, OPEN)));
        },
        12 + IDLE_TIMEOUT_S,
    );
}

/// A half-open flow that nobody wants the place of: until its SYN is repeated no more, and a repeated
/// one starts the time anew.
#[test]
fn a_handshake_has_its_time_and_no_more() {
    let [client, other]: [u32; 2] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    assert_eq!(stage.at(0).syn(client), CURRENT);
    assert_eq!(stage.at(HALF_OPEN_TIMEOUT_S).syn(client), CURRENT);
    assert_eq!(stage.at(2 * HALF_OPEN_TIMEOUT_S).ack(client), CURRENT);
    assert_eq!(stage.entry(client), Some((CURRENT, OPEN)));

    assert_eq!(stage.at(200).syn(other), CURRENT);
    assert_eq!(stage.entry(other), Some((CURRENT, HALF_OPEN)));
}

/// A port is free again as soon as its connection is at its end.
#[test]
fn a_syn_on_a_closing_flow_begins_a_new_one() {
    for end in [Stage::fin, Stage::rst] {
        let [client]: [u32; 1] = clients_of_one_set();
        let stage = Stage::new(MOVING);
        stage.ack(client);
        assert_eq!(stage.ack(client), PREVIOUS);
        assert_eq!(end(&stage, client), PREVIOUS);
        assert_eq!(stage.syn(client), CURRENT);
        let opening = HALF_OPEN.with(FlowState::DISPLACING);
        assert_eq!(stage.entry(client), Some((CURRENT, opening)));
        assert_eq!(stage.flows().len(), 1);
    }
}

/// It may have had packets that a peer has died with: only then is it begun anew.
#[test]
fn a_datagram_follows_its_record_a_refresh_longer_than_the_idle_timeout() {
    let longest_s = IDLE_TIMEOUT_S + untold_s(IDLE_TIMEOUT_S);
    for (second, is_followed) in [(longest_s, true), (longest_s + 1, false)] {
        let stage = Stage::new(MOVING);
        stage.at(0).datagram(1);
        stage.datagram(1);
        let states = |stage: &Stage| -> Vec<FlowState> {
            stage
                .flows()
                .into_values()
                .map(|(_, state)| state)
                .collect()
        };
        assert_eq!(states(&stage), [OPEN]);
        stage.at(second).datagram(1);
        assert_eq!(states(&stage) == [OPEN], is_followed, "at {second} s");
    }
}
