//! The fingerprint of CVE-2017-15361 (ROCA): primes of the form k·M + (65537^a mod M), where M is the product of the first primes.
//!
//! The modulus of such a key is a power of 65537 modulo each of these primes ("The Return of Coppersmith's Attack", 2017, section 3.2).
//! Of other moduli, one in a hundred million is too, and then another key is made.

use std::sync::LazyLock;

use num_bigint::BigUint;

/// The primes of the published test. Modulo 2 every odd number is a power of 65537.
const PRIMES: [u8; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137,
    139, 149, 151, 157, 163, 167,
];

/// For each prime, the powers of 65537 modulo it: bit n is set if n is one.
static POWERS: LazyLock<Vec<(u32, [u128; 2])>> = LazyLock::new(|| {
    let powers = |prime: u8| {
        let (prime, mut mask, mut power) = (u32::from(prime), [0_u128; 2], 1);
        while !has(&mask, power) {
            mask[(power / 128) as usize] |= 1 << (power % 128);
            power = power * 65_537 % prime;
        }
        (prime, mask)
    };
    PRIMES.iter().map(|prime| powers(*prime)).collect()
});

fn has(mask: &[u128; 2], number: u32) -> bool {
    mask.get((number / 128) as usize).is_some_and(|half| half >> (number % 128) & 1 == 1)
}

/// Whether the modulus has the fingerprint.
pub fn has_fingerprint(modulus: &BigUint) -> bool {
    POWERS.iter().all(|(prime, mask)| {
        let rest = (modulus % *prime).to_u32_digits().first().copied().unwrap_or_default();
        has(mask, rest)
    })
}
