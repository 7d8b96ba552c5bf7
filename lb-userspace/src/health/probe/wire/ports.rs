//! Local ports for connections that the kernel knows nothing of.
//!
//! The kernel does not know that these ports are in use, so it may use them too, and it sees the answers as
//! well. What keeps the two apart:
//!
//! - What comes back has the VIP for its source, which is an address of this node. Over IPv4 the kernel drops
//!   it as a martian, without a word. Over IPv6, and over IPv4 with `accept_local`, it hands it to its own TCP:
//!   there it could only meet a connection of this node's own from the same address and port *to the VIP*,
//!   and such a connection never leaves the node, since the VIP is local. For what it knows nothing of it
//!   makes a RST to the VIP, which is local again and ends on loopback: the backend never sees it.
//! - A datagram could meet a UDP socket of this node that is bound to its port and takes datagrams from
//!   anywhere. Hence the range: above 60999, where `net.ipv4.ip_local_port_range` ends by default, so that
//!   no port of the kernel's choice is in it, and few services choose one there.
//! - In the other direction, what belongs to a connection of the kernel's is never taken for an answer:
//!   it would have to come from the VIP and its port.
//!
//! A port is used anew as late as possible, and never while the same connection (VIP, port, source address)
//! has it. It begins at random: a successor of this daemon does not begin with its predecessor's.

use super::frame::Conversation;

/// The lowest port, and the lowest id of an echo request.
pub(super) const PORT_MIN: u16 = 61_000;
/// How many there are.
const COUNT: u16 = u16::MAX - PORT_MIN + 1;

/// The next port to try.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
}

impl Ports {
    /// Begins anywhere, as a random number says.
    pub(super) const fn beginning_at(random: u16) -> Self {
        Self {
            next: PORT_MIN + random % COUNT,
        }
    }

    /// Gives a conversation a local port that it has to itself; `None` if all are taken.
    pub(super) fn choose(
        &mut self,
        mut conversation: Conversation,
        is_taken: impl Fn(&Conversation) -> bool,
    ) -> Option<Conversation> {
        for _ in 0..COUNT {
            conversation.local.set_port(self.next);
            self.next = match self.next {
                u16::MAX => PORT_MIN,
                port => port + 1,
            };
            if !is_taken(&conversation) {
                return Some(conversation);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::health::probe::wire::frame::Transport;

    fn a_conversation() -> Conversation {
        Conversation {
            transport: Transport::Tcp,
            local: "10.0.0.1:0".parse().unwrap(),
            remote: "203.0.113.10:80".parse().unwrap(),
        }
    }

    #[test]
    fn each_port_is_used_once_before_any_is_used_twice() {
        for random in [0, 1, COUNT - 1, u16::MAX] {
            let mut ports = Ports::beginning_at(random);
            let mut taken = HashSet::new();
            while let Some(one) = ports.choose(a_conversation(), |one| taken.contains(one)) {
                assert!(one.local.port() >= PORT_MIN);
                assert!(taken.insert(one));
            }
            assert_eq!(taken.len(), usize::from(COUNT));
            let other = Conversation {
                remote: "203.0.113.11:80".parse().unwrap(),
                ..a_conversation()
            };
            assert!(ports.choose(other, |one| taken.contains(one)).is_some());
        }
    }
}
