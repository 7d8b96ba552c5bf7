use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// An IPv4 or IPv6 address, as four 32-bit words in network byte order. IPv4 is kept in its mapped
/// form `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2), so that one code path serves both families.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Address(pub [u32; 4]);

const MAPPED_PREFIX: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// The unspecified IPv6 address, `::`.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// From the 32-bit IPv4 address as it stands in the packet (network byte order).
    #[inline(always)]
    pub const fn from_ipv4_be(word_be: u32) -> Self {
        Self([0, 0, MAPPED_PREFIX, word_be])
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED_PREFIX
    }

    /// The 16 bytes in network order, the key of a route.
    #[inline(always)]
    pub fn octets(&self) -> [u8; 16] {
        bytemuck::cast(self.0)
    }

    /// The address in the standard library's form.
    pub fn to_ip(self) -> IpAddr {
        let octets = self.octets();
        if self.is_ipv4() {
            IpAddr::V4(Ipv4Addr::new(
                octets[12], octets[13], octets[14], octets[15],
            ))
        } else {
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Self(bytemuck::cast(octets))
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["203.0.113.10", "2001:db8::10", "0.0.0.0", "::", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).to_ip(), ip);
            assert_eq!(Address::from(ip).is_ipv4(), ip.is_ipv4());
        }
    }

    #[test]
    fn words_are_in_network_order() {
        let address = Address::from(IpAddr::from([10, 0, 0, 11]));
        assert_eq!(
            address,
            Address::from_ipv4_be(u32::from_ne_bytes([10, 0, 0, 11]))
        );
    }
}
