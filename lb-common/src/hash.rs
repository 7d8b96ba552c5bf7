//! The keyed flow hash, and the unkeyed one for stable identities.
//!
//! The flow hash must be secret, because whoever can compute it can aim all flows at one backend,
//! and cheap, because every packet pays for it. Two rounds of keyed multiply and xor-shift with
//! a keyed final round cost 4 ns where SipHash-1-3 costs 14; all 256 key bits enter. It is no
//! cryptographic hash; what it has to withstand is somebody who sees which backend answers.

use crate::abi::Address;
use crate::limits::HASH_KEY_WORDS;

/// An odd constant without pattern (the golden ratio's fraction, 2⁶⁴ / φ).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the flow hash covers.
#[derive(Clone, Copy, Debug)]
pub struct FlowTuple {
    /// The client's address.
    pub source: Address,
    /// The VIP.
    pub destination: Address,
    /// Source port in the upper, destination port in the lower half; both as they stand in
    /// the packet.
    pub ports: u32,
}

/// Hashes a flow. Equal on every node with the same key. The upper half is the better one: rings
/// take [`upper`].
#[inline(always)]
pub fn flow(tuple: &FlowTuple, key: &[u64; HASH_KEY_WORDS]) -> u64 {
    let source = tuple.source.0;
    let destination = tuple.destination.0;
    // Every input bit meets a key word before the first multiplication.
    let mut state = round(join(source[3], tuple.ports) ^ key[0], key[1]);
    if !tuple.source.is_ipv4() {
        state = round(state ^ join(source[0], source[1]), key[2]);
        state = round(state ^ join(source[2], destination[0]), key[3]);
        state = round(state ^ join(destination[1], destination[2]), key[0]);
    }
    state = round(state ^ u64::from(destination[3]) ^ key[2], key[3]);
    fold(state).wrapping_mul(GOLDEN)
}

/// The upper half of a flow's hash.
#[inline(always)]
pub const fn upper(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[inline(always)]
const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// One keyed round: fold, multiply by an odd key word. A difference in the upper half alone would
/// leave the product's lower half as it was, and the top bit alone would pass through a product
/// unchanged whatever the key: the fold brings both down.
#[inline(always)]
const fn round(state: u64, key: u64) -> u64 {
    fold(state).wrapping_mul(key | 1).wrapping_add(key)
}

/// Brings the upper half down, without losing anything.
#[inline(always)]
const fn fold(state: u64) -> u64 {
    state ^ (state >> 32)
}

/// Maps a hash evenly onto `0..len` without a division (Lemire's multiply-shift).
#[inline(always)]
pub const fn index(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}

/// The 64-bit finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every output bit depends
/// on every input bit.
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(GOLDEN);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The inverse of [`mix`]: what it was made of.
pub const fn unmix(mixed: u64) -> u64 {
    // The inverses of the two odd factors modulo 2⁶⁴; a fold is undone by folding further.
    let value = (mixed ^ (mixed >> 31) ^ (mixed >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    let value = (value ^ (value >> 27) ^ (value >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    (value ^ (value >> 30) ^ (value >> 60)).wrapping_sub(GOLDEN)
}

/// A backend's identity in rings: a function of what it is (address and port), equal on every
/// node and in every version of the program. FNV-1a, then [`mix`].
pub fn identity(address: &Address, port: u16) -> u64 {
    let port = port.to_be_bytes();
    let bytes = address.octets().into_iter().chain(port);
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::{vec, *};

    use super::*;

    const KEY: [u64; 4] = [
        0x0123_4567_89ab_cdef,
        0xfedc_ba98_7654_3210,
        0x1357_9bdf_0246_8ace,
        0x0f1e_2d3c_4b5a_6978,
    ];

    fn tuple(
        source: IpAddr,
        destination: IpAddr,
        source_port: u16,
        destination_port: u16,
    ) -> FlowTuple {
        let ports = u32::from(source_port.to_be()) << 16 | u32::from(destination_port.to_be());
        FlowTuple {
            source: source.into(),
            destination: destination.into(),
            ports,
        }
    }

    /// Chi-squared over 256 bins of the multiply-shift index, for structured inputs: the kind that
    /// clients really send.
    fn spread(tuples: impl Iterator<Item = FlowTuple>) -> f64 {
        let mut bins = vec![0_u32; 256];
        let mut count = 0;
        for tuple in tuples {
            bins[index(upper(flow(&tuple, &KEY)), 256) as usize] += 1;
            count += 1;
        }
        let expected = f64::from(count) / 256.0;
        bins.iter()
            .map(|&bin| (f64::from(bin) - expected).powi(2) / expected)
            .sum()
    }

    #[test]
    fn structured_flows_spread_evenly() {
        let vip = IpAddr::from([203, 0, 113, 10]);
        let vip6: IpAddr = "2001:db8::10".parse().unwrap();
        let one_client_even_ports =
            (0..30_000_u16).map(|n| tuple([10, 0, 0, 1].into(), vip, n * 2, 80));
        let many_clients_one_port = (0..60_000_u32).map(|n| {
            let client = Ipv4Addr::from(0x0a00_0000 + n);
            tuple(client.into(), vip, 40_000, 80)
        });
        let v6_clients = (0..60_000_u128).map(|n| {
            let client = Ipv6Addr::from((0x2001_0db8_u128 << 96) + (n << 64) + 1);
            tuple(client.into(), vip6, 40_000, 443)
        });
        let v6_hosts = (0..60_000_u128).map(|n| {
            let client = Ipv6Addr::from((0x2001_0db8_u128 << 96) + n);
            tuple(client.into(), vip6, 40_000, 443)
        });
        // 255 degrees of freedom: mean 255, 99.99th percentile about 347.
        for chi_squared in [
            spread(one_client_even_ports),
            spread(many_clients_one_port),
            spread(v6_clients),
            spread(v6_hosts),
        ] {
            assert!(chi_squared < 347.0, "chi squared {chi_squared}");
        }
    }

    #[test]
    fn every_field_and_every_key_word_matters() {
        let base = tuple(
            "2001:db8::1".parse().unwrap(),
            "2001:db8::10".parse().unwrap(),
            1000,
            80,
        );
        let reference = flow(&base, &KEY);
        for word in 0..4 {
            let mut other = base;
            other.source.0[word] ^= 0x0100;
            assert_ne!(flow(&other, &KEY), reference, "source word {word}");
            let mut other = base;
            other.destination.0[word] ^= 0x0100;
            assert_ne!(flow(&other, &KEY), reference, "destination word {word}");
            let mut key = KEY;
            key[word] ^= 1 << 40;
            assert_ne!(flow(&base, &key), reference, "key word {word}");
        }
        for bit in 0..32 {
            let other = FlowTuple {
                ports: base.ports ^ 1 << bit,
                ..base
            };
            assert_ne!(flow(&other, &KEY), reference, "port bit {bit}");
        }
    }

    /// Address pairs that differ in the top bits of several words, which products alone pass on.
    #[test]
    fn top_bits_do_not_cancel_out() {
        let vip: IpAddr = "2001:db8::10".parse().unwrap();
        let pairs = [
            ("2001:db8::1", "2001:d38:0:80::81"),
            ("2001:db8::1", "a001:db8::1"),
            ("2001:db8::1", "2001:db8:8000::1"),
        ];
        for (one, other) in pairs {
            let equal = (0..10_000_u64).filter(|seed| {
                let key = [0, 1, 2, 3].map(|word| mix(seed * 4 + word));
                let hash =
                    |client: &str| flow(&tuple(client.parse().unwrap(), vip, 1000, 80), &key);
                upper(hash(one)) == upper(hash(other))
            });
            assert!(
                equal.count() <= 2,
                "{one} and {other} share their hash under many keys"
            );
        }
    }

    #[test]
    fn unmix_is_the_inverse_of_mix() {
        for value in [0, 1, u64::MAX, GOLDEN, 1 << 63, 0x0123_4567_89ab_cdef] {
            assert_eq!(unmix(mix(value)), value);
            assert_eq!(mix(unmix(value)), value);
        }
    }

    #[test]
    fn index_stays_in_range() {
        assert_eq!(index(0, 16_381), 0);
        assert_eq!(index(u32::MAX, 16_381), 16_380);
        assert_eq!(index(u32::MAX, 1), 0);
    }
}
