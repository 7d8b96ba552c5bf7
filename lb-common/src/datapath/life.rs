//! A flow's life in the flow table: what its packets make of its state, and how long it is kept.

use crate::abi::FlowState;
use crate::limits::{FIN_LINGER_S, HALF_OPEN_TIMEOUT_S, RST_LINGER_S};
use crate::wire::tcp::{PROTOCOL_TCP, TcpFlags};

/// The state after a segment that is no SYN (or, with all flags clear, a datagram). It ends probation,
/// confirms a learned flow, and shows that a RST before it was not the client's. Two segments after a
/// FIN, none of them the FIN again, are more than an orderly end has: the other half of the
/// connection is in use.
#[inline(always)]
pub(super) fn after_segment(state: FlowState, flags: TcpFlags) -> FlowState {
    let confirmed = state
        .without(FlowState::HALF_OPEN)
        .without(FlowState::DISPLACING)
        .without(FlowState::EXPOSED)
        .without(FlowState::LEARNED)
        .without(FlowState::RST);
    let ended = if flags.has_fin() {
        confirmed.with(FlowState::FIN)
    } else if confirmed.has(FlowState::FIN.with(FlowState::FIN_ACKED)) {
        confirmed.with(FlowState::HALF_CLOSED)
    } else if confirmed.has(FlowState::FIN) {
        confirmed.with(FlowState::FIN_ACKED)
    } else {
        confirmed
    };
    if flags.has_rst() {
        ended.with(FlowState::RST)
    } else {
        ended
    }
}

/// How long a flow in this state is kept from its last packet on: no longer than the idle time-out,
/// but for a TCP handshake, which takes its own time. Unit: seconds.
#[inline(always)]
pub fn linger_s(state: FlowState, protocol: u8, idle_timeout_s: u32) -> u32 {
    let linger_s = if state.has(FlowState::RST) {
        RST_LINGER_S
    } else if state.has(FlowState::DISPLACING) && idle_timeout_s > HALF_OPEN_TIMEOUT_S {
        idle_timeout_s
    } else if state.is_half_open() {
        HALF_OPEN_TIMEOUT_S
    } else if state.is_closing() {
        FIN_LINGER_S
    } else {
        idle_timeout_s
    };
    let is_handshake = state.is_half_open() && protocol == PROTOCOL_TCP;
    if linger_s < idle_timeout_s || is_handshake {
        linger_s
    } else {
        idle_timeout_s
    }
}

/// A flow that lives on is told to peers again when a part of its idle time-out has passed: one part of so many.
const REFRESHES_PER_TIMEOUT: u32 = 4;
/// Walking through the table to find such flows takes so long. Unit: seconds.
pub const REFRESH_WALK_S: u32 = 4;
/// Ages are told in whole seconds, and rounded twice. Unit: seconds.
const ROUNDING_S: u32 = 2;

/// A peer is told of a flow that only lives on when it lives so much longer than the peer knows. Unit: seconds.
#[inline(always)]
pub const fn refresh_s(idle_timeout_s: u32) -> u32 {
    let refresh_s = idle_timeout_s / REFRESHES_PER_TIMEOUT;
    if refresh_s == 0 { 1 } else { refresh_s }
}

/// A packet that comes after so much silence marks its set as changed, so that peers are told at once of what it adds.
/// The walk would tell of it as well, but a node may die before: what it has kept to itself then would be as long as the
/// silence, and a flow that speaks seldom be taken for one that has ended. Unit: seconds.
pub const SILENCE_TOLD_S: u32 = 2;

/// A flow's last packet may have come so much later than a record says that a peer has told: the peer has died before
/// it told again. So for that long after its expiry such a record is kept, followed, and told to others. Unit: seconds.
///
/// What came before the last walk is told but for a refresh; the walk takes its time, and the first packet since may have
/// come after a silence that is too short to be told of ([`SILENCE_TOLD_S`], less the one second that it has to lack).
#[inline(always)]
pub const fn untold_s(idle_timeout_s: u32) -> u32 {
    refresh_s(idle_timeout_s) + REFRESH_WALK_S + ROUNDING_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::udp::PROTOCOL_UDP;

    const ACK: TcpFlags = TcpFlags(0x10);
    const FIN: TcpFlags = TcpFlags(0x11);
    const RST: TcpFlags = TcpFlags(0x04);

    fn after(flags: &[TcpFlags]) -> FlowState {
        flags.iter().fold(FlowState::HALF_OPEN, |state, flags| {
            after_segment(state, *flags)
        })
    }

    #[test]
    fn an_orderly_end_lingers_shortly_and_a_half_closed_download_as_long_as_an_open_flow() {
        assert_eq!(
            linger_s(FlowState::HALF_OPEN, PROTOCOL_TCP, 900),
            HALF_OPEN_TIMEOUT_S
        );
        assert_eq!(linger_s(after(&[ACK]), PROTOCOL_TCP, 900), 900);
        assert_eq!(
            linger_s(after(&[ACK, FIN, FIN, ACK]), PROTOCOL_TCP, 900),
            FIN_LINGER_S
        );
        assert!(after(&[ACK, FIN, ACK]).is_closing());
        let half_closed = after(&[ACK, FIN, ACK, ACK]);
        assert_eq!(linger_s(half_closed, PROTOCOL_TCP, 900), 900);
        assert!(!half_closed.is_closing());
    }

    #[test]
    fn a_reset_counts_until_the_next_segment() {
        assert_eq!(
            linger_s(after(&[ACK, RST]), PROTOCOL_TCP, 900),
            RST_LINGER_S
        );
        assert!(after(&[ACK, RST]).is_closing());
        assert_eq!(after(&[ACK, RST, ACK]), FlowState::OPEN);
    }

    #[test]
    fn nothing_but_a_handshake_lingers_longer_than_the_idle_time_out() {
        for state in [FlowState::OPEN, FlowState::FIN, FlowState::RST] {
            assert_eq!(linger_s(state, PROTOCOL_TCP, 5), 5);
        }
        let handshake = FlowState::HALF_OPEN;
        assert_eq!(linger_s(handshake, PROTOCOL_TCP, 5), HALF_OPEN_TIMEOUT_S);
        assert_eq!(linger_s(handshake, PROTOCOL_UDP, 5), 5);
    }
}
