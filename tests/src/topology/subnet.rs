//! The two subnets of a laboratory network.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One of the two subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    /// 10.0.0.0/24 and fd00:10::/64.
    Backends,
    /// 10.1.0.0/24 and fd00:11::/64.
    Clients,
}

impl Subnet {
    /// The IPv4 address with the last number `host`.
    pub const fn v4(self, host: u8) -> Ipv4Addr {
        match self {
            Self::Backends => Ipv4Addr::new(10, 0, 0, host),
            Self::Clients => Ipv4Addr::new(10, 1, 0, host),
        }
    }

    /// The IPv6 address whose last group reads like `host` in decimal digits.
    pub const fn v6(self, host: u8) -> Ipv6Addr {
        let digits = (host / 100) as u16 * 0x100 + (host / 10 % 10) as u16 * 0x10;
        let last = digits + (host % 10) as u16;
        match self {
            Self::Backends => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, last),
            Self::Clients => Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, last),
        }
    }

    /// `ip` commands that give `interface` its addresses.
    pub(super) fn add_addresses(self, interface: &str, host: u8) -> String {
        let (v4, v6) = (self.v4(host), self.v6(host));
        format!("addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_read_alike() {
        assert_eq!(Subnet::Backends.v4(11).to_string(), "10.0.0.11");
        assert_eq!(Subnet::Backends.v6(11).to_string(), "fd00:10::11");
        assert_eq!(Subnet::Clients.v6(100).to_string(), "fd00:11::100");
        assert_eq!(Subnet::Clients.v6(1).to_string(), "fd00:11::1");
    }
}
