//! A known-bad key for each check. The RSA keys were made for this test, and each has one fault.

use base64::{Engine, engine::general_purpose::STANDARD};
use num_bigint::BigUint;

use super::{ec::Curve, *};
use crate::{
    csr::{CsrError, certification_request},
    keys::{KeyGenerator, aws_lc::AwsLc},
};

/// Lines of a name and a private key info. The names are those of the checks that the keys fail.
const KEYS: &str = include_str!("bad_keys.txt");

fn private_key_info(name: &str) -> Vec<u8> {
    let line = KEYS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    STANDARD.decode(line).unwrap()
}

fn number(hexadecimal: &str) -> BigUint {
    BigUint::parse_bytes(hexadecimal.as_bytes(), 16).unwrap()
}

/// A number as an octet string of this length.
fn octets(number: &BigUint, length: usize) -> Vec<u8> {
    let octets = number.to_bytes_be();
    [vec![0; length - octets.len()], octets].concat()
}

#[test]
fn a_good_rsa_key_passes_and_each_bad_one_fails_the_check_of_its_name() {
    assert_eq!(rsa::check(&private_key_info("good"), 2048), Ok(()));
    let checks = [Check::ModulusSize, Check::PublicExponent, Check::SmallFactor, Check::Fermat, Check::ClosePrimes, Check::Roca];
    assert_eq!(KEYS.lines().count(), checks.len() + 1);
    for check in checks {
        assert_eq!(rsa::check(&private_key_info(check.name()), 2048), Err(Unfit(check)));
    }
    assert_eq!(rsa::check(&private_key_info("good"), 3072), Err(Unfit(Check::ModulusSize)));
    assert_eq!(rsa::check(&private_key_info("good")[1..], 2048), Err(Unfit(Check::KeyType)));
}

#[test]
fn every_prime_below_two_to_the_sixteenth_is_a_small_factor_and_the_next_one_is_not() {
    // 2^2203 - 1 is a prime.
    let large = (BigUint::from(1_u8) << 2203_u32) - 1_u8;
    let primes = [2_u32, 3, 5, 251, 257, 32_749, 65_519, 65_521];
    for factor in primes.into_iter().chain((2..1 << 16).step_by(97)) {
        assert!(rsa::has_small_factor(&(&large * factor)), "{factor}");
    }
    assert!(!rsa::has_small_factor(&(&large * 65_537_u32)));
    assert!(!rsa::has_small_factor(&large));
}

#[test]
fn fermats_method_finds_what_it_should_in_a_hundred_rounds_and_no_more() {
    let prime = (BigUint::from(1_u8) << 1023_u32) + 1155_u32;
    assert!(rsa::is_factored_by_fermat(&(&prime * &prime), 1), "a square");
    // With factors a - b and a + b, round n looks at the sum of ⌈√(a² - b²)⌉ and n - 1: it takes b² / 2a rounds.
    let a = BigUint::from(1_u8) << 1000_u32;
    for (rounds, is_found) in [(10_u32, true), (99, true), (101, false), (1_000, false)] {
        let b = ((&a << 1_u32) * rounds).sqrt();
        assert_eq!(rsa::is_factored_by_fermat(&((&a - &b) * (&a + &b)), 100), is_found, "{rounds}");
    }
}

#[test]
fn primes_that_differ_by_no_more_than_the_limit_are_close_whichever_is_the_larger() {
    let one = (BigUint::from(3_u8) << 1022_u32) + 1_u8;
    let limit = BigUint::from(1_u8) << 924_u32;
    for (distance, is_close) in [
        (BigUint::from(0_u8), true),
        (BigUint::from(1_u8), true),
        (&limit - 1_u8, true),
        (limit.clone(), true),
        (&limit + 1_u8, false),
        (&limit << 1_u32, false),
        (BigUint::from(1_u8) << 1022_u32, false),
    ] {
        for other in [&one + &distance, &one - &distance] {
            let (one, other) = (one.to_bytes_be(), other.to_bytes_be());
            assert_eq!(rsa::are_close(&one, &other, 2048), is_close, "{distance}");
            assert_eq!(rsa::are_close(&other, &one, 2048), is_close, "{distance}");
        }
    }
}

#[test]
fn moduli_built_as_cve_2017_15361_does_have_the_fingerprint_and_others_do_not() {
    // M of 512-bit keys: the product of the primes up to 167. What stands before it is free.
    let primes = (2_u32..=167).filter(|number| (2..*number).all(|divisor| number % divisor != 0));
    let product: BigUint = primes.map(BigUint::from).product();
    let generator = BigUint::from(65_537_u32);
    for exponent in [1_u32, 2, 1_000, 4_000_000_000] {
        let factor = |times: u32| &product * times + generator.modpow(&BigUint::from(exponent).pow(times), &product);
        let modulus = factor(7) * factor(3);
        assert!(roca::has_fingerprint(&modulus), "{exponent}");
        assert!(!roca::has_fingerprint(&(modulus + 2_u8)), "{exponent}");
    }
}

#[test]
fn a_private_key_is_a_number_from_one_to_less_than_the_order() {
    let orders = [
        (KeyType::P256v1, 32, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
        (KeyType::P384, 48, "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"),
    ];
    for (key_type, length, order) in orders {
        let (curve, order) = (Curve::of(key_type).unwrap(), number(order));
        let is_in_range = |scalar: &BigUint| curve.has_in_range(&octets(scalar, length));
        assert!(is_in_range(&BigUint::from(1_u8)) && is_in_range(&(&order - 1_u8)));
        assert!(!is_in_range(&BigUint::from(0_u8)), "zero");
        assert!(!is_in_range(&order), "the order");
        assert!(!is_in_range(&(&order + 1_u8)));
        assert!(!curve.has_in_range(&octets(&order, length)[1..]), "too short");
        let key = AwsLc.generate(key_type).unwrap();
        assert!(curve.has_in_range(key.ec_scalar().unwrap().as_ref()));
    }
}

#[test]
fn a_point_off_the_curve_on_another_one_compressed_or_at_infinity_is_refused() {
    for (key_type, other) in [(KeyType::P256v1, KeyType::P384), (KeyType::P384, KeyType::P256v1)] {
        let curve = Curve::of(key_type).unwrap();
        let point = AwsLc.generate(key_type).unwrap().public_key().to_vec();
        let length = point.len();
        assert!(curve.point(&point).is_some());
        let mut off = point.clone();
        off[length - 1] ^= 1;
        let mut origin = vec![0; length];
        origin[0] = 4;
        let mut beyond = vec![0xff; length];
        beyond[0] = 4;
        let compressed = [&[2 + (point[length - 1] & 1)], &point[1..=length / 2]].concat();
        let of_other = AwsLc.generate(other).unwrap().public_key().to_vec();
        for (what, bad) in [
            ("off the curve", off),
            ("the origin", origin),
            ("no elements of the field", beyond),
            ("infinity", vec![0]),
            ("infinity, as long as a point", vec![0; length]),
            ("compressed", compressed),
            ("of another curve", of_other),
            ("nothing", Vec::new()),
        ] {
            assert!(curve.point(&bad).is_none(), "{what}");
        }
    }
}

#[test]
fn a_key_of_another_type_than_was_asked_for_is_refused() {
    let check_as = |made: KeyType, asked: KeyType| {
        let key = AwsLc.generate(made).unwrap();
        check(asked, &key, &key.to_private_key_info().unwrap()).map(drop).map_err(|unfit| unfit.0)
    };
    assert_eq!(check_as(KeyType::P256v1, KeyType::P384), Err(Check::KeyType));
    assert_eq!(check_as(KeyType::Ed25519, KeyType::P256v1), Err(Check::KeyType));
    assert_eq!(check_as(KeyType::P256v1, KeyType::Ed25519), Err(Check::KeyType));
    assert_eq!(check_as(KeyType::Ed25519, KeyType::Rsa2048), Err(Check::KeyType));
    assert_eq!(check_as(KeyType::Rsa2048, KeyType::Rsa3072), Err(Check::ModulusSize));
}

#[test]
fn a_signature_that_the_public_key_does_not_verify_is_noticed() {
    for key_type in [KeyType::Rsa2048, KeyType::P256v1, KeyType::P384, KeyType::Ed25519] {
        let [one, other] = [AwsLc.generate(key_type).unwrap(), AwsLc.generate(key_type).unwrap()];
        let own = NewKey { key: &one, public_key: one.parsed_public_key().unwrap() };
        assert!(own.sign(b"a message").is_ok());
        assert_eq!(own.check_signature(), Ok(()));
        let foreign = NewKey { key: &one, public_key: other.parsed_public_key().unwrap() };
        assert_eq!(foreign.sign(b"a message"), Err(rcgen::Error::RemoteKeyError));
        assert_eq!(foreign.check_signature(), Err(Unfit(Check::Signature)));
        let request = shared::testing::request(key_type);
        assert!(certification_request(&request, &own).is_ok());
        assert_eq!(certification_request(&request, &foreign), Err(CsrError::Signature), "no CSR leaves with it");
    }
}

#[test]
fn good_keys_of_all_types_pass() {
    for key_type in KeyType::ALL {
        let key = AwsLc.generate(*key_type).unwrap();
        let info = key.to_private_key_info().unwrap();
        assert_eq!(check(*key_type, &key, &info).and_then(|key| key.check_signature()), Ok(()), "{key_type:?}");
    }
}
