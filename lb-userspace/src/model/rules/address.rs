use std::net::{IpAddr, Ipv6Addr};

/// Why an address can be neither a VIP nor a backend's; `None` = it can.
pub(super) fn unfit(address: IpAddr) -> Option<&'static str> {
    match address {
        address if address.is_unspecified() => Some("is the unspecified address"),
        address if address.is_loopback() => Some("is a loopback address: it never leaves a host"),
        address if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 clothes: write it as IPv4")
        }
        IpAddr::V6(ip) if is_link_local(ip) => {
            Some("is a link-local address, which means nothing without an interface")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Why an address cannot be one of VRRP's, where link-local ones have a meaning; `None` = it can.
pub(super) fn unfit_on_link(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V6(ip) if is_link_local(ip) => None,
        address => unfit(address),
    }
}

/// `fe80::/10` (RFC 4291 section 2.5.6).
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// The family's name, for messages.
pub(super) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
