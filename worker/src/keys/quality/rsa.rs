//! Checks of RSA keys.

use std::{cmp::Ordering, sync::LazyLock};

use num_bigint::BigUint;
use pkcs1::RsaPrivateKey;
use pkcs8::PrivateKeyInfo;
use zeroize::Zeroizing;

use super::{Check, Unfit, roca};

/// 65537, big-endian.
const EXPONENT: &[u8] = &[1, 0, 1];

/// Factors below this number are looked for.
const SMALL: u32 = 1 << 16;

/// Rounds of Fermat's method.
const ROUNDS: u32 = 100;

/// The distance of the primes is at least the size of a prime, less these bits.
const CLOSE_BITS: usize = 100;

/// Checks the numbers of a private key info, without a copy of the secret ones.
pub fn check(private_key_info: &[u8], bits: usize) -> Result<(), Unfit> {
    let unreadable = Unfit(Check::KeyType);
    let info = PrivateKeyInfo::try_from(private_key_info).map_err(|_| unreadable)?;
    let key = RsaPrivateKey::try_from(info.private_key).map_err(|_| unreadable)?;
    let modulus = BigUint::from_bytes_be(key.modulus.as_bytes());
    let failed = if !has_bits(&modulus, bits) {
        Check::ModulusSize
    } else if !is_usual_exponent(key.public_exponent.as_bytes()) {
        Check::PublicExponent
    } else if has_small_factor(&modulus) {
        Check::SmallFactor
    } else if is_factored_by_fermat(&modulus, ROUNDS) {
        Check::Fermat
    } else if are_close(key.prime1.as_bytes(), key.prime2.as_bytes(), bits) {
        Check::ClosePrimes
    } else if roca::has_fingerprint(&modulus) {
        Check::Roca
    } else {
        return Ok(());
    };
    Err(Unfit(failed))
}

/// Whether the modulus has exactly this size.
pub fn has_bits(modulus: &BigUint, bits: usize) -> bool {
    u64::try_from(bits) == Ok(modulus.bits())
}

/// Whether the public exponent, big-endian and without leading zeros, is 65537.
pub fn is_usual_exponent(exponent: &[u8]) -> bool {
    exponent == EXPONENT
}

/// The primes below 2^16, each group with its product: one division of the modulus serves a whole group.
static SMALL_PRIMES: LazyLock<Vec<(u64, Vec<u32>)>> = LazyLock::new(|| {
    let mut is_composite = vec![false; SMALL as usize];
    let mut groups = vec![(1_u64, Vec::new())];
    for number in 2..SMALL {
        if is_composite[number as usize] {
            continue;
        }
        for multiple in (number * 2..SMALL).step_by(number as usize) {
            is_composite[multiple as usize] = true;
        }
        match groups.last_mut() {
            Some((product, primes)) if product.checked_mul(u64::from(number)).is_some() => {
                *product *= u64::from(number);
                primes.push(number);
            }
            _ => groups.push((u64::from(number), vec![number])),
        }
    }
    groups
});

/// Whether a prime below 2^16 divides the modulus.
pub fn has_small_factor(modulus: &BigUint) -> bool {
    let digits = modulus.to_u64_digits();
    SMALL_PRIMES.iter().any(|(product, primes)| {
        let rest = remainder(&digits, *product);
        primes.iter().any(|prime| rest.is_multiple_of(u64::from(*prime)))
    })
}

/// The remainder of a number, given as digits of 64 bits with the least significant first.
fn remainder(digits: &[u64], divisor: u64) -> u64 {
    let rest = digits.iter().rev().fold(0_u128, |rest, digit| ((rest << 64) | u128::from(*digit)) % u128::from(divisor));
    u64::try_from(rest).unwrap_or_default()
}

/// Whether Fermat's method factors the modulus in so many rounds: it is the difference of two squares that are close to each other.
pub fn is_factored_by_fermat(modulus: &BigUint, rounds: u32) -> bool {
    let mut root = modulus.sqrt();
    if &root * &root < *modulus {
        root += 1_u32;
    }
    let mut rest = &root * &root - modulus;
    for _ in 0..rounds {
        if is_square(&rest) {
            return true;
        }
        rest += (&root << 1_u32) + 1_u32;
        root += 1_u32;
    }
    false
}

/// Whether a number is a square. Its remainders tell for nearly all that are not.
fn is_square(number: &BigUint) -> bool {
    const MODULI: [u32; 4] = [64, 63, 65, 11];
    /// 64 · 63 · 65 · 11
    const PRODUCT: u32 = 2_882_880;
    let rest = number % PRODUCT;
    let rest = rest.to_u32_digits().first().copied().unwrap_or_default();
    if !MODULI.iter().all(|modulus| (0..*modulus).any(|root| root * root % modulus == rest % modulus)) {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

/// Whether two primes of a modulus of this size, big-endian, differ by 2^(bits/2 - 100) or less.
pub fn are_close(one: &[u8], other: &[u8], bits: usize) -> bool {
    let length = one.len().max(other.len());
    let digit = |number: &[u8], index: usize| number.len().checked_sub(index + 1).map_or(0, |place| number[place]);
    let (larger, smaller) = match one.len().cmp(&other.len()).then_with(|| one.cmp(other)) {
        Ordering::Less => (other, one),
        Ordering::Equal | Ordering::Greater => (one, other),
    };
    // The difference, least significant octet first. It is as secret as the primes.
    let mut difference = Zeroizing::new(vec![0_u8; length]);
    let mut borrow = false;
    for (index, octet) in difference.iter_mut().enumerate() {
        let (rest, below) = digit(larger, index).overflowing_sub(digit(smaller, index));
        let (rest, below_again) = rest.overflowing_sub(u8::from(borrow));
        *octet = rest;
        borrow = below || below_again;
    }
    let limit = (bits / 2).saturating_sub(CLOSE_BITS);
    let is_set = |bit: usize| difference.get(bit / 8).is_some_and(|octet| octet >> (bit % 8) & 1 == 1);
    let has_higher = (limit + 1..length * 8).any(is_set);
    let has_lower = (0..limit).any(is_set);
    !(has_higher || is_set(limit) && has_lower)
}
