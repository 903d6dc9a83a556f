//! Where keys come from, and which of them count.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaPublicKeyComponents,
    },
};
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A key pair: its PEM, its signing key, its JWK.
pub(super) struct Pair {
    pub pem: String,
    pub encoding: EncodingKey,
    pub algorithm: Algorithm,
    pub jwk: Value,
}

fn spki_pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

pub(super) fn rsa_pair(size: rsa::KeySize) -> Pair {
    let pair = rsa::KeyPair::generate(size).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let encoding = EncodingKey::from_rsa_pem(
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref())).as_bytes(),
    )
    .unwrap();
    let n = URL_SAFE_NO_PAD.encode(pair.public_key().modulus().big_endian_without_leading_zero());
    Pair { pem: spki_pem(public.as_ref()), encoding, algorithm: Algorithm::RS256, jwk: json!({"kty": "RSA", "n": n, "e": "AQAB"}) }
}

pub(super) fn ec_pair() -> Pair {
    ec_pair_on(&ECDSA_P256_SHA256_ASN1_SIGNING, "P-256", Algorithm::ES256)
}

pub(super) fn ec_pair_on(signing: &'static EcdsaSigningAlgorithm, crv: &str, algorithm: Algorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(signing).unwrap();
    let point = pair.public_key().as_ref().to_vec();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let encoding = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
    let (x, y) = point[1..].split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": crv, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
    Pair { pem: spki_pem(public.as_ref()), encoding, algorithm, jwk }
}

pub(super) fn ed_pair() -> Pair {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let encoding = EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())});
    Pair { pem: spki_pem(public.as_ref()), encoding, algorithm: Algorithm::EdDSA, jwk }
}

fn sign(pair: &Pair, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(pair.algorithm) };
    jsonwebtoken::encode(&header, &claims(), &pair.encoding).unwrap()
}

/// An odd modulus of this many bits; nobody knows its factors.
pub(super) fn modulus(bits: usize) -> Vec<u8> {
    let mut n = vec![0xff; bits.div_ceil(8)];
    n[0] >>= n.len() * 8 - bits;
    n
}

fn weak_rsa_pem(bits: usize) -> String {
    let der = RsaPublicKeyComponents { n: modulus(bits), e: vec![1, 0, 1] }.as_der().unwrap();
    spki_pem(der.as_ref())
}

/// The pair's JWK with more members, or others.
pub(super) fn jwk(pair: &Pair, more: &Value) -> Value {
    let mut jwk = pair.jwk.clone();
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

fn refusal(source: KeySource) -> String {
    Authenticator::new(&settings(source), Arc::new(FixedClock)).err().unwrap().to_string()
}

#[test]
fn a_public_key_file_takes_the_algorithm_of_its_key_and_any_kid() {
    let files = Files::new();
    for pair in [rsa_pair(rsa::KeySize::Rsa2048), ec_pair(), ed_pair()] {
        let settings = settings(KeySource::PublicKeyFile(files.write(&pair.pem)));
        assert!(judge(&settings, &sign(&pair, None)).is_ok(), "{:?}", pair.algorithm);
        assert!(judge(&settings, &sign(&pair, Some("any"))).is_ok());
        assert_eq!(judge(&settings, &hs256(&claims())), Err(1002));
        let public_as_secret = EncodingKey::from_secret(pair.pem.as_bytes());
        let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &public_as_secret).unwrap();
        assert_eq!(judge(&settings, &confused), Err(1002), "a public key is no HMAC secret");
    }
}

#[test]
fn a_file_that_is_no_public_key_is_refused_with_the_setting_and_the_problem() {
    let files = Files::new();
    let [p384, k256] = [&ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P256K1_SHA256_ASN1_SIGNING].map(|algorithm| {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        spki_pem(public.as_ref())
    });
    let rsa = rsa_pair(rsa::KeySize::Rsa2048).pem;
    for (content, problem) in [
        (String::new(), "holds no PEM"),
        (rsa.replace("PUBLIC", "PRIVATE"), "holds a private key"),
        (rsa.replace("PUBLIC KEY", "CERTIFICATE"), "holds a certificate"),
        (rsa.repeat(2), "one PEM block"),
        (
            format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
                rsa.replace("PUBLIC", "EC PRIVATE")
            ),
            "private",
        ),
        (p384, "not on P-256"),
        (k256, "not on P-256"),
        (weak_rsa_pem(1024), "1024 bits"),
        (weak_rsa_pem(2047), "2047 bits"),
        (weak_rsa_pem(8200), "8200 bits"),
        (spki_pem(b"junk"), "neither"),
    ] {
        let error = refusal(KeySource::PublicKeyFile(files.write(&content)));
        assert!(error.starts_with("--jwt-public-key-file: ") && error.contains(problem), "{error}");
    }
}

#[test]
fn a_secret_file_drops_one_newline_and_needs_32_bytes() {
    let files = Files::new();
    for newline in ["", "\n", "\r\n"] {
        let path = files.write([SECRET, newline.as_bytes()].concat());
        assert!(judge(&settings(KeySource::SecretFile(path)), &hs256(&claims())).is_ok());
    }
    let path = files.write([&SECRET[1..], b"\n"].concat());
    let error = refusal(KeySource::SecretFile(path));
    assert!(error.contains("--jwt-secret-file") && error.contains("31 bytes"), "{error}");
}

#[test]
fn a_jwk_set_is_searched_by_kid_and_algorithm() {
    let files = Files::new();
    let (rsa, ec, ed, other) = (rsa_pair(rsa::KeySize::Rsa2048), ec_pair(), ed_pair(), ec_pair());
    let set = json!({"keys": [
        {"kty": "oct", "k": "AAAA", "kid": "oct"},
        {"kty": "future", "kid": "future"},
        5,
        jwk(&rsa, &json!({"kid": "rsa", "use": "sig"})),
        jwk(&ec, &json!({"kid": "ec", "alg": "ES256"})),
        jwk(&ed, &json!({})),
        jwk(&other, &json!({"kid": "enc", "use": "enc"})),
    ]});
    let settings = settings(KeySource::JwksFile(files.write(set.to_string())));
    assert!(judge(&settings, &sign(&rsa, Some("rsa"))).is_ok());
    assert!(judge(&settings, &sign(&ec, Some("ec"))).is_ok());
    assert!(judge(&settings, &sign(&ec, None)).is_ok(), "exactly one key fits");
    assert!(judge(&settings, &sign(&ed, None)).is_ok());
    assert_eq!(judge(&settings, &sign(&ec, Some("rsa"))), Err(1002));
    assert_eq!(judge(&settings, &sign(&ed, Some("ed"))), Err(1002), "a kid that no key has");
    assert_eq!(judge(&settings, &sign(&other, Some("enc"))), Err(1002));
    assert_eq!(judge(&settings, &sign(&other, Some("ec"))), Err(1003));
    assert_eq!(judge(&settings, &hs256(&claims())), Err(1002));
}

#[test]
fn without_a_kid_a_token_is_refused_where_several_keys_fit() {
    let files = Files::new();
    let (one, two) = (ec_pair(), ec_pair());
    let settings = settings(KeySource::JwksFile(files.write(json!({"keys": [one.jwk, two.jwk]}).to_string())));
    assert_eq!(judge(&settings, &sign(&one, None)), Err(1002));
}

#[test]
fn a_jwk_set_without_a_usable_key_is_refused() {
    let files = Files::new();
    for bad in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        let error = refusal(KeySource::JwksFile(files.write(bad)));
        assert!(error.starts_with("--jwt-jwks-file: ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_jwk_that_could_verify_nothing_is_ignored_and_the_reason_is_named() {
    let files = Files::new();
    let (ec, ed) = (ec_pair(), ed_pair());
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    for (bad, problem) in [
        (json!({"kty": "RSA", "n": encode(&modulus(2047)), "e": "AQAB"}), "2047 bits"),
        (json!({"kty": "RSA", "n": encode(&modulus(8200)), "e": "AQAB"}), "8200 bits"),
        (json!({"kty": "RSA", "n": "", "e": "AQAB"}), "0 bits"),
        (json!({"kty": "RSA", "n": encode(&modulus(2048)), "e": ""}), "broken"),
        (json!({"kty": "RSA", "n": encode(&modulus(2048)), "e": "AQ"}), "broken"),
        (json!({"kty": "RSA", "n": "+/==", "e": "AQAB"}), "base64url"),
        (json!({"kty": "RSA", "n": encode(&modulus(2048)), "e": "AQAB", "alg": "RSA-OAEP"}), "alg"),
        (json!({"kty": "RSA", "n": encode(&modulus(2048)), "e": "AQAB", "alg": "HS256"}), "alg"),
        (jwk(&ec, &json!({"x": encode(&[1; 32])})), "not on P-256"),
        (jwk(&ec, &json!({"x": "AAAA"})), "not on P-256"),
        (jwk(&ec, &json!({"crv": "P-384"})), "not on P-384"),
        (jwk(&ec, &json!({"crv": "secp256k1"})), "kty or crv"),
        (jwk(&ec, &json!({"alg": "ES384"})), "alg"),
        (jwk(&ec, &json!({"alg": "RS256"})), "alg"),
        (jwk(&ed, &json!({"crv": "P-256"})), "kty or crv"),
        (jwk(&ed, &json!({"crv": "X25519"})), "kty or crv"),
        (jwk(&ed, &json!({"x": "AAAA"})), "Ed25519"),
        (jwk(&ed, &json!({"use": "enc"})), "encryption"),
        (jwk(&ed, &json!({"kid": 5})), "not a JWK"),
    ] {
        let error = refusal(KeySource::JwksFile(files.write(json!({"keys": [bad]}).to_string())));
        assert!(error.contains("keys/0: ") && error.contains(problem), "{bad}: {error}");
        let beside_a_good_one = json!({"keys": [bad, ed.jwk]}).to_string();
        assert!(judge(&settings(KeySource::JwksFile(files.write(beside_a_good_one))), &sign(&ed, None)).is_ok(), "{bad}");
    }
}

#[test]
fn every_algorithm_of_a_jwk_is_verified_and_no_other_of_its_family_accepted() {
    let files = Files::new();
    let mut rsa = rsa_pair(rsa::KeySize::Rsa2048);
    let family = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    for configured in family {
        let set = json!({"keys": [jwk(&rsa, &json!({"kid": "k", "alg": format!("{configured:?}")}))]});
        let settings = settings(KeySource::JwksFile(files.write(set.to_string())));
        for claimed in family {
            rsa.algorithm = claimed;
            let expected = if claimed == configured { Ok("me".to_owned()) } else { Err(1002) };
            let outcome = judge(&settings, &sign(&rsa, Some("k"))).map(|caller| caller.subject().to_owned());
            assert_eq!(outcome, expected, "{claimed:?} with a key for {configured:?}");
        }
    }
    let p384 = ec_pair_on(&ECDSA_P384_SHA384_ASN1_SIGNING, "P-384", Algorithm::ES384);
    let settings = settings(KeySource::JwksFile(files.write(json!({"keys": [p384.jwk]}).to_string())));
    assert!(judge(&settings, &sign(&p384, None)).is_ok());
}

#[test]
fn an_rsa_modulus_may_begin_with_a_zero_octet() {
    let files = Files::new();
    let rsa = rsa_pair(rsa::KeySize::Rsa2048);
    let n = URL_SAFE_NO_PAD.decode(rsa.jwk["n"].as_str().unwrap()).unwrap();
    let padded = jwk(&rsa, &json!({"n": URL_SAFE_NO_PAD.encode([&[0], n.as_slice()].concat())}));
    let settings = settings(KeySource::JwksFile(files.write(json!({"keys": [padded]}).to_string())));
    assert!(judge(&settings, &sign(&rsa, None)).is_ok());
}

#[test]
fn reloaded_keys_count_at_once_and_broken_ones_change_nothing() {
    let files = Files::new();
    let (old, new) = (ec_pair(), ec_pair());
    let source = KeySource::JwksFile(files.write(json!({"keys": [old.jwk]}).to_string()));
    let authenticator = authenticator(&settings(source.clone()));
    let accepts = |pair: &Pair| authenticator.judge(&[format!("Bearer {}", sign(pair, None)).as_bytes()]).is_ok();
    assert!(accepts(&old) && !accepts(&new));
    files.write(json!({"keys": [new.jwk]}).to_string());
    assert!(accepts(&old) && !accepts(&new), "nothing is read before it is told to");
    authenticator.reload_if_changed(&source).unwrap();
    assert!(!accepts(&old) && accepts(&new));
    files.write(r#"{"keys":[]}"#);
    assert!(authenticator.reload_if_changed(&source).is_err());
    assert!(accepts(&new));
}

#[test]
fn of_several_keys_with_one_kid_each_that_fits_the_algorithm_is_tried() {
    let files = Files::new();
    let (one, other, third) = (ec_pair(), ec_pair(), ec_pair());
    let with_kid = |pair: &Pair| {
        let mut jwk = pair.jwk.clone();
        jwk["kid"] = json!("same");
        jwk
    };
    let source = KeySource::JwksFile(files.write(json!({"keys": [with_kid(&one), with_kid(&other)]}).to_string()));
    let sign = |pair: &Pair, kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims(), &pair.encoding).unwrap()
    };
    for pair in [&one, &other] {
        assert!(judge(&settings(source.clone()), &sign(pair, Some("same"))).is_ok());
    }
    assert_eq!(judge(&settings(source.clone()), &sign(&third, Some("same"))), Err(1003));
    assert_eq!(judge(&settings(source), &sign(&one, None)), Err(1002), "which of them is not said");
}

#[test]
fn a_jwk_of_small_order_one_for_another_operation_and_one_with_private_members_are_passed_over() {
    let files = Files::new();
    let load =
        |keys: Value| Authenticator::new(&settings(KeySource::JwksFile(files.write(keys.to_string()))), Arc::new(FixedClock)).map(drop);
    let good = ed_pair().jwk;
    assert!(load(json!({"keys": [good]})).is_ok());
    for first in [0, 1, 0xec, 0xed, 0xee] {
        for sign in [0, 0x80] {
            let mut point = [if first > 1 { 0xff } else { 0 }; 32];
            point[0] = first;
            point[31] = (if first > 1 { 0x7f } else { 0 }) | sign;
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(point)});
            assert!(load(json!({"keys": [jwk]})).is_err(), "{first:x} {sign:x}");
            assert!(load(json!({"keys": [jwk, good]})).is_ok());
        }
    }
    for (member, value) in [("key_ops", json!(["encrypt"])), ("key_ops", json!([])), ("d", json!("AAAA"))] {
        let mut jwk = good.clone();
        jwk[member] = value;
        assert!(load(json!({"keys": [jwk]})).is_err(), "{jwk}");
    }
    let mut jwk = good.clone();
    jwk["key_ops"] = json!(["verify"]);
    assert!(load(json!({"keys": [jwk]})).is_ok());
    let marked = format!("\u{feff}{}", json!({"keys": [good]}));
    assert!(Authenticator::new(&settings(KeySource::JwksFile(files.write(marked))), Arc::new(FixedClock)).is_ok());
}
