//! What a peer may say of rings that has the secret and has lost its mind: as bytes, to their reader; and well formed,
//! to the coordinators of two nodes that have not.
//!
//! It does not say by heartbeat that it is Active: who does decides rings by right. So the Active node goes on deciding
//! its own, whatever is claimed, and what its slots lead to is what it wants. What the mad one says of its own flows
//! counts: slots may consult the flow table that need not, and settle later. When its link is gone, the other two have
//! the same ring again.

mod lies;
mod nodes;

use anyhow::{Context, Result, ensure};
use lb_userspace::cluster::message::{MESSAGE_BYTES_MAX, Message, SERVICES_PER_MESSAGE};
use lb_userspace::cluster::{LinkState, Role};

use self::lies::Liar;
use self::nodes::{Nodes, PATIENCE_MS};
use crate::Tally;
use crate::rng::Rng;

/// Messages to one pair of nodes.
const SCENE_MESSAGES: u64 = 5_000;
/// Messages between two looks at the rings, at most.
const BETWEEN_LOOKS: usize = 16;
/// Slots that make a bomb, many times what a message may hold.
const BOMB_SLOTS: usize = 8 << 23;
/// An answer for each service that a message may name, to each node.
const OUTPUTS_MAX: usize = 2 * SERVICES_PER_MESSAGE;
/// A dead backend's slots wait 300 ms for the peers, and a look comes every 10 ms. Unit: milliseconds.
const DEATH_MS: u64 = 400;
/// A planned change waits for the peers that are there; who does not acknowledge it may hold it up, until it is gone.
/// After that: for it to count as gone, and for the change to be prepared. Unit: milliseconds.
const CALM_MS: u64 = PATIENCE_MS + 10_000;
/// What two nodes say to each other in that time when nothing happens: two reports a second each, and what is left of
/// changes.
const CALM_MESSAGES_MAX: usize = 300;
/// A coordinator with a ring and a peer, in words. Unit: bytes.
const COORDINATOR_TEXT_MAX: usize = 60_000;

/// Sends so many messages.
pub(crate) fn attack(rng: &mut Rng, messages: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    let bomb = lies::bomb(BOMB_SLOTS);
    ensure!(
        bomb.len() <= MESSAGE_BYTES_MAX,
        "a bomb of {} bytes is too long by itself",
        bomb.len()
    );
    while tally.hostile < messages {
        let scene_end = messages.min(tally.hostile + SCENE_MESSAGES);
        let mad = 1 + rng.below(3);
        let mut nodes = Nodes::new(rng, mad);
        let mut liar = Liar::new(rng, mad, bomb.clone());
        // Nobody need hear what the other one is told.
        let [active, other] = nodes.honest();
        let hearers = [[active, other], [active, active], [other, other]][rng.below(3)];
        let scene = play(rng, &mut nodes, (&mut liar, hearers), scene_end, &mut tally);
        scene.with_context(|| format!("lb{mad} is mad"))?;
    }
    Ok(tally)
}

fn play(
    rng: &mut Rng,
    nodes: &mut Nodes,
    (liar, hearers): (&mut Liar, [usize; 2]),
    scene_end: u64,
    tally: &mut Tally,
) -> Result<()> {
    let mut died_ms = None;
    while tally.hostile < scene_end {
        if rng.below(100) == 0 && died_ms.is_none() {
            died_ms = nodes.change_mind(rng);
        }
        for _ in 0..rng.below(BETWEEN_LOOKS + 1) {
            let to = hearers[rng.below(hearers.len())];
            lie_once(rng, nodes, (liar, to), tally)?;
        }
        tally.genuine += nodes.look(liar) as u64;
        check_active(nodes)?;
        if let Some(since_ms) = died_ms {
            let is_over = !nodes.leads_to_the_dead();
            ensure!(
                is_over || nodes.now_ms <= since_ms + DEATH_MS,
                "{} ms after its death, slots still lead to a backend",
                nodes.now_ms - since_ms
            );
            died_ms = died_ms.filter(|_| !is_over);
        }
    }
    calm_down(nodes, liar)?;
    check_size(nodes)
}

/// One message: what can be read of it is taken.
fn lie_once(
    rng: &mut Rng,
    nodes: &mut Nodes,
    (liar, to): (&mut Liar, usize),
    tally: &mut Tally,
) -> Result<()> {
    let bytes = liar.next(rng, to);
    let message = match Message::decode(&bytes) {
        Ok(message) => message,
        Err(malformed) => {
            tally.refuse(malformed);
            return Ok(());
        }
    };
    ensure!(
        bytes.len() <= MESSAGE_BYTES_MAX,
        "{} bytes were read",
        bytes.len()
    );
    ensure!(!liar.is_bomb(&bytes), "a bomb has gone off");
    let what = lies::kind(&message);
    let outputs = nodes.receive(to, message);
    ensure!(
        outputs <= OUTPUTS_MAX,
        "{outputs} messages come of a {what}"
    );
    tally.refuse(format!("(well formed: {what})"));
    Ok(())
}

/// The Active node decides, and its slots lead where it wants them to, or where they led before.
fn check_active(nodes: &mut Nodes) -> Result<()> {
    let active = nodes.active();
    let status = active.coordinator.status();
    let own = status.first().context("it has no ring")?;
    ensure!(own.role == Role::Owner, "the Active node follows: {own:?}");
    let strayed = nodes.strayed();
    ensure!(strayed.is_empty(), "the Active node's slots: {strayed:?}");
    Ok(())
}

/// What the mad one has told is forgotten.
fn check_size(nodes: &Nodes) -> Result<()> {
    for number in nodes.honest() {
        let text_bytes = format!("{:?}", nodes.node(number).coordinator).len();
        ensure!(
            text_bytes <= COORDINATOR_TEXT_MAX,
            "lb{number} has grown to {text_bytes} bytes"
        );
    }
    Ok(())
}

/// The mad one's link is cut: the two others agree, and have nothing to say.
fn calm_down(nodes: &mut Nodes, liar: &mut Liar) -> Result<()> {
    nodes.lose_mad();
    nodes.pass(CALM_MS, liar);
    let said = nodes.pass(CALM_MS, liar);
    ensure!(
        said <= CALM_MESSAGES_MAX,
        "{said} messages in {CALM_MS} ms, long after the last lie"
    );
    check_active(nodes)?;
    let [active, other] = nodes.honest();
    let mad = nodes.mad_name();
    let link = nodes.node(active).coordinator.link_state(&mad);
    ensure!(link == Some(LinkState::Gone), "the link to {mad}: {link:?}");
    let behind = nodes.node(other).coordinator.behind();
    ensure!(behind.is_none(), "lb{other}: {behind:?}");
    let terms = [active, other].map(|number| {
        let status = nodes.node(number).coordinator.status();
        status.into_iter().next().map(|own| own.term)
    });
    ensure!(terms[0] == terms[1], "they are in two terms: {terms:?}");
    let rings = [active, other].map(|number| nodes.ring(number));
    ensure!(rings[0] == rings[1], "they have two rings: {rings:?}");
    ensure!(nodes.is_as_wanted(), "{:?}, and not as wanted", rings[0]);
    Ok(())
}
