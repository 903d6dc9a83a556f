//! RSASSA-PSS with any salt: what aws-lc-rs verifies, and what it has no algorithm for.

use aws_lc_rs::{
    digest,
    signature::{self, VerificationAlgorithm},
};
use num_bigint::BigUint;

use super::algorithm::{Hash, Pss};

impl Pss {
    /// aws-lc-rs verifies with a salt and a mask that fit the hash.
    #[must_use]
    pub fn usual(self) -> Option<&'static dyn VerificationAlgorithm> {
        if self.mask != self.hash || self.salt != self.hash.octets() {
            return None;
        }
        Some(match self.hash {
            Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
        })
    }

    /// RSASSA-PSS-VERIFY (RFC 8017, 8.1.2) for salts and masks that aws-lc-rs has no algorithm for. Everything in it is public, so nothing
    /// has to take the same time for each key.
    #[must_use]
    pub fn verify(self, message: &[u8], signed: &[u8], (modulus, exponent): &(BigUint, BigUint)) -> bool {
        let octets = |bits: u64| usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX);
        let signature = BigUint::from_bytes_be(signed);
        if signed.len() != octets(modulus.bits()) || signature >= *modulus {
            return false;
        }
        let encoded_bits = modulus.bits() - 1;
        let number = signature.modpow(exponent, modulus).to_bytes_be();
        let Some(missing) = octets(encoded_bits).checked_sub(number.len()) else { return false };
        let encoded = [vec![0; missing], number].concat();
        self.verify_encoded(message, &encoded, u32::try_from(encoded_bits % 8).unwrap_or_default())
    }

    /// EMSA-PSS-VERIFY (RFC 8017, 9.1.2). The first octet has `first_bits` bits, or all eight where that is 0.
    fn verify_encoded(self, message: &[u8], encoded: &[u8], first_bits: u32) -> bool {
        let hash_octets = self.hash.octets();
        let Some((masked, [hashed @ .., 0xbc])) = encoded.len().checked_sub(hash_octets + 1).map(|at| encoded.split_at(at)) else {
            return false;
        };
        let Some(padding) = masked.len().checked_sub(self.salt + 1) else { return false };
        let mut block: Vec<u8> = masked.iter().zip(self.mask(hashed, masked.len())).map(|(masked, mask)| masked ^ mask).collect();
        let unused = if first_bits == 0 { 0 } else { !(0xff_u8 >> (8 - first_bits)) };
        if masked[0] & unused != 0 {
            return false;
        }
        block[0] &= !unused;
        let (zeros, salt) = (&block[..padding], &block[padding + 1..]);
        if zeros.iter().any(|octet| *octet != 0) || block[padding] != 1 {
            return false;
        }
        let algorithm = self.hash.algorithm();
        let digest_of_message = digest::digest(algorithm, message);
        let expected = digest::digest(algorithm, &[&[0; 8], digest_of_message.as_ref(), salt].concat());
        expected.as_ref() == hashed
    }

    /// MGF1 (RFC 8017, B.2.1).
    fn mask(self, seed: &[u8], octets: usize) -> Vec<u8> {
        let block = |counter: u32| digest::digest(self.mask.algorithm(), &[seed, &counter.to_be_bytes()].concat()).as_ref().to_vec();
        (0..).flat_map(block).take(octets).collect()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::KeySize,
        signature::{KeyPair, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair},
    };
    use x509_parser::{prelude::FromDer, public_key::RSAPublicKey};

    use super::*;

    #[test]
    fn the_own_verification_of_pss_agrees_with_the_librarys_on_the_salt_that_it_knows() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (_, key) = RSAPublicKey::from_der(pair.public_key().as_ref()).unwrap();
        let numbers = (BigUint::from_bytes_be(key.modulus), BigUint::from_bytes_be(key.exponent));
        for (hash, encoding) in [(Hash::Sha256, &RSA_PSS_SHA256), (Hash::Sha384, &RSA_PSS_SHA384), (Hash::Sha512, &RSA_PSS_SHA512)] {
            let pss = Pss { hash, mask: hash, salt: hash.octets() };
            let mut signed = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), b"a message", &mut signed).unwrap();
            assert!(pss.verify(b"a message", &signed, &numbers));
            assert!(!pss.verify(b"another", &signed, &numbers));
            for other in [Pss { salt: pss.salt + 1, ..pss }, Pss { salt: 0, ..pss }, Pss { salt: 5000, ..pss }] {
                assert!(!other.verify(b"a message", &signed, &numbers));
            }
            for at in [0, 100, signed.len() - 1] {
                let mut changed = signed.clone();
                changed[at] ^= 1;
                assert!(!pss.verify(b"a message", &changed, &numbers));
            }
            assert!(!pss.verify(b"a message", &signed[1..], &numbers));
            assert!(!pss.verify(b"a message", &[], &numbers));
        }
    }

    #[test]
    fn an_encoded_message_of_any_length_is_judged() {
        for octets in 0..80 {
            for hash in [Hash::Sha256, Hash::Sha512] {
                for salt in [0, 1, 32] {
                    let mut encoded = vec![0x55; octets];
                    if let Some(last) = encoded.last_mut() {
                        *last = 0xbc;
                    }
                    assert!(!Pss { hash, mask: hash, salt }.verify_encoded(b"", &encoded, 7));
                }
            }
        }
    }
}
