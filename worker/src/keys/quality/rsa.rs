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

/// Odd primes whose product fits 64 bits: the modulus is reduced once for all of them.
struct Group {
    product: u64,
    /// -1/product modulo 2^64.
    negated_inverse: u64,
    primes: Vec<u64>,
}

impl Group {
    fn new(product: u64, primes: Vec<u64>) -> Self {
        // Newton's method doubles the bits that are right, of which an odd number has three as its own inverse.
        let inverse = (0..5).fold(product, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(product.wrapping_mul(inverse))));
        Self { product, negated_inverse: inverse.wrapping_neg(), primes }
    }

    /// Whether one of the primes divides a number, given as digits of 64 bits with the least significant first.
    ///
    /// This is Montgomery's reduction, since a division takes several times as long: it leaves the number divided by a power of two, which is a
    /// multiple of the same odd primes.
    fn divides(&self, digits: &[u64]) -> bool {
        let rest = digits.iter().fold(0_u64, |rest, digit| {
            let factor = rest.wrapping_add(*digit).wrapping_mul(self.negated_inverse);
            factor.carrying_mul_add(self.product, rest, *digit).1
        });
        self.primes.iter().any(|prime| rest.is_multiple_of(*prime))
    }
}

/// The odd primes below 2^16.
static ODD_PRIMES: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let mut is_composite = vec![false; SMALL as usize];
    let (mut groups, mut product, mut primes) = (Vec::new(), 1_u64, Vec::new());
    for number in (3..SMALL).step_by(2) {
        if is_composite[number as usize] {
            continue;
        }
        for multiple in (number * 2..SMALL).step_by(number as usize) {
            is_composite[multiple as usize] = true;
        }
        let prime = u64::from(number);
        product = product.checked_mul(prime).unwrap_or_else(|| {
            groups.push(Group::new(product, std::mem::take(&mut primes)));
            prime
        });
        primes.push(prime);
    }
    groups.push(Group::new(product, primes));
    groups
});

/// Whether a prime below 2^16 divides the modulus.
pub fn has_small_factor(modulus: &BigUint) -> bool {
    let digits = modulus.to_u64_digits();
    !modulus.bit(0) || ODD_PRIMES.iter().any(|group| group.divides(&digits))
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
