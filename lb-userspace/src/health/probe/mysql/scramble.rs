//! How a client proves that it knows the password.

use num_bigint::BigUint;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::health::outcome::{Failure, FailureKind};

use super::packet::garbage;

/// Sizes of a server's RSA key that are worth computing with: smaller ones protect nothing, larger
/// ones are a way to keep this node busy. Unit: bits.
const RSA_BITS: std::ops::RangeInclusive<u64> = 1024..=8192;

/// The largest public exponent; all the world uses 65537. Unit: bits.
const RSA_EXPONENT_BITS_MAX: u64 = 32;

/// The longest PEM with a key of that size. Unit: bytes.
const PEM_MAX_BYTES: usize = 4096;

/// `mysql_native_password`: SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))).
pub(super) fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha1 = |parts: &[&[u8]]| hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts);
    let once = sha1(&[password]);
    let twice = sha1(&[&once]);
    xor(&once, &sha1(&[nonce, &twice]))
}

/// `caching_sha2_password`, the fast path: SHA256(password) XOR SHA256(SHA256(SHA256(password)) +
/// nonce).
pub(super) fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha256 = |parts: &[&[u8]]| hash(&digest::SHA256, parts);
    let once = sha256(&[password]);
    let twice = sha256(&[&once]);
    xor(&once, &sha256(&[&twice, nonce]))
}

/// `caching_sha2_password`, the full authentication: the password with its NUL, XORed with the nonce
/// and encrypted for the server (RSA-OAEP).
pub(super) fn encrypted(password: &[u8], nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, Failure> {
    if nonce.is_empty() {
        return Err(garbage("the server sent no nonce"));
    }
    let with_nul = [password, &[0]].concat();
    let mask: Vec<u8> = nonce.iter().copied().cycle().take(with_nul.len()).collect();
    Key::from_pem(pem)?.encrypt(&xor(&with_nul, &mask))
}

fn hash(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(a, b)| a ^ b).collect()
}

/// A server's RSA key.
struct Key {
    modulus: BigUint,
    exponent: BigUint,
}

impl Key {
    fn from_pem(pem: &[u8]) -> Result<Self, Failure> {
        let unreadable = || garbage("the server's public key is no RSA key in PEM");
        if pem.len() > PEM_MAX_BYTES {
            return Err(unreadable());
        }
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| unreadable())?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents).map_err(|_| unreadable())?;
        let Ok(PublicKey::RSA(key)) = info.parsed() else {
            return Err(unreadable());
        };
        let key = Self {
            modulus: BigUint::from_bytes_be(key.modulus),
            exponent: BigUint::from_bytes_be(key.exponent),
        };
        let is_sane = RSA_BITS.contains(&key.modulus.bits())
            && key.modulus.bit(0)
            && (2..=RSA_EXPONENT_BITS_MAX).contains(&key.exponent.bits());
        if is_sane {
            Ok(key)
        } else {
            Err(garbage(format!(
                "the server's RSA key has {} bits, and exponent {}: not one to trust a password to",
                key.modulus.bits(),
                key.exponent
                    .to_str_radix(16)
                    .get(..16)
                    .unwrap_or("of few bits")
            )))
        }
    }

    fn bytes(&self) -> usize {
        self.modulus.bits().div_ceil(8) as usize
    }

    /// RSAES-OAEP with SHA-1 and an empty label (RFC 8017 section 7.1.1).
    fn encrypt(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let block = self.padded(message)?;
        let cipher = BigUint::from_bytes_be(&block)
            .modpow(&self.exponent, &self.modulus)
            .to_bytes_be();
        let zeros = self.bytes() - cipher.len();
        Ok([vec![0; zeros], cipher].concat())
    }

    /// EME-OAEP: 0, the masked seed, the masked block of label's hash, zeros, 1 and message.
    fn padded(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let label = hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[]);
        let zeros = self
            .bytes()
            .checked_sub(message.len() + 2 * label.len() + 2)
            .ok_or_else(|| {
                Failure::new(
                    FailureKind::Local,
                    format!(
                        "the password is too long for an RSA key of {} bytes",
                        self.bytes()
                    ),
                )
            })?;
        let mut seed = vec![0; label.len()];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| Failure::new(FailureKind::Local, "the system gave no random bytes"))?;
        let data = [&label, &vec![0; zeros], &vec![1], &message.to_vec()]
            .map(Vec::as_slice)
            .concat();
        let masked_data = xor(&data, &mask(&seed, data.len()));
        let masked_seed = xor(&seed, &mask(&masked_data, seed.len()));
        Ok([vec![0], masked_seed, masked_data].concat())
    }
}

/// MGF1 with SHA-1 (RFC 8017 appendix B.2.1).
fn mask(seed: &[u8], length: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|counter| {
            hash(
                &digest::SHA1_FOR_LEGACY_USE_ONLY,
                &[seed, &counter.to_be_bytes()],
            )
        })
        .take(length)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An RSA key of 1024 bits, made for these tests: the public half in PEM, the modulus and the private
    /// exponent in hexadecimal.
    pub(in crate::health::probe::mysql) const TEST_KEY_PEM: &str = "\
        -----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDVvKnXrFvHEYUArMVmfqgn5PRo\n\
        3GtB3XjaiudC77WQGwU6Bu8I2273x1H2q3NxSvxpOoJgGu0EmuuwlOEN232+Uekx\n\
        7Dpv8RTfi2IKViKyzab9vZbLGeMI6eH/gK9uSr20fMCrjOrn5nJJucjW5mF1VV0x\n\
        vayvBgorZE8T743YVQIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const TEST_KEY_MODULUS: &str = "\
        d5bca9d7ac5bc7118500acc5667ea827e4f468dc6b41dd78da8ae742efb5901b053a06ef08db6ef7\
        c751f6ab73714afc693a82601aed049aebb094e10ddb7dbe51e931ec3a6ff114df8b620a5622b2cd\
        a6fdbd96cb19e308e9e1ff80af6e4abdb47cc0ab8ceae7e67249b9c8d6e66175555d31bdacaf060a\
        2b644f13ef8dd855";
    const TEST_KEY_PRIVATE: &str = "\
        4d05c4eadcc8e20ef5300e12c0e1c9b53eb3b90a1d78c9d7e06187ff3e24debe6dfec03ae9a531f3\
        069809dd3527d18eee58d05cd3b7301ea7eaa56c08b35d374cf0e9403e93e2d2bc58b2ea751f24a4\
        c7845bb203d9b0535c4d2d1891c1feb09b727008642723b013fd88684b507cc52f7508ff3cdbbb4e\
        ddad9f1b2d043361";

    /// What the server does with an encrypted password.
    pub(in crate::health::probe::mysql) fn decrypted(cipher: &[u8], nonce: &[u8]) -> Vec<u8> {
        let number = |hex: &str| BigUint::parse_bytes(hex.as_bytes(), 16).expect("hexadecimal");
        let block = BigUint::from_bytes_be(cipher)
            .modpow(&number(TEST_KEY_PRIVATE), &number(TEST_KEY_MODULUS))
            .to_bytes_be();
        // The block's first byte is 0, and not among the bytes of its number.
        let (masked_seed, masked_data) = block.split_at(20);
        let seed = xor(masked_seed, &mask(masked_data, 20));
        let data = xor(masked_data, &mask(&seed, masked_data.len()));
        let start = 21 + data[20..].iter().position(|byte| *byte == 1).expect("a 1");
        let message = &data[start..];
        let mask: Vec<u8> = nonce.iter().copied().cycle().take(message.len()).collect();
        xor(message, &mask)
    }

    #[test]
    fn the_native_proof_is_what_a_server_verifies() {
        // A server knows SHA1(SHA1(password)) and finds SHA1(password) in the proof.
        let nonce = b"01234567890123456789";
        let proof = native(b"s3cret", nonce);
        let sha1 = |parts: &[&[u8]]| hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts);
        let stored = sha1(&[&sha1(&[b"s3cret"])]);
        let once = xor(&proof, &sha1(&[nonce, &stored]));
        assert_eq!(sha1(&[&once]), stored);
    }

    #[test]
    fn the_sha2_proof_is_what_a_server_verifies() {
        let nonce = b"01234567890123456789";
        let proof = caching_sha2(b"s3cret", nonce);
        let sha256 = |parts: &[&[u8]]| hash(&digest::SHA256, parts);
        let stored = sha256(&[&sha256(&[b"s3cret"])]);
        let once = xor(&proof, &sha256(&[&stored, nonce]));
        assert_eq!(sha256(&[&once]), stored);
    }

    #[test]
    fn an_encrypted_password_is_read_by_the_keys_owner() {
        let nonce = b"abcdefghijklmnopqrst";
        let password = "a password that is longer than its nonce".as_bytes();
        let cipher = encrypted(password, nonce, TEST_KEY_PEM.as_bytes()).unwrap();
        assert_eq!(cipher.len(), 128);
        let plain = decrypted(&cipher, nonce);
        assert_eq!(plain.strip_suffix(&[0]).unwrap(), password);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let nonce = b"abcdefghijklmnopqrst";
        let no_base64 = "-----BEGIN PUBLIC KEY-----\n????\n-----END PUBLIC KEY-----\n";
        let no_key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for pem in ["", "garbage", no_base64, no_key, &"-".repeat(10_000)] {
            let failure = encrypted(b"s3cret", nonce, pem.as_bytes()).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
        }
        let too_long = encrypted(&[b'x'; 200], nonce, TEST_KEY_PEM.as_bytes()).unwrap_err();
        assert_eq!(too_long.kind, FailureKind::Local);
    }
}
