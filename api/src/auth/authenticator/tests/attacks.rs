//! Attacks on tokens (RFC 8725, 2), each with what it gets. One authenticator judges them all, as a service does.

use super::{
    keys::{Pair, ec_pair, ec_pair_on, ed_pair, jwk, modulus, rsa_pair},
    *,
};

/// A service's keys, and those of somebody else.
struct Ring {
    rsa: Pair,
    ec: Pair,
    ed: Pair,
    foreign: Pair,
    authenticator: Authenticator,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs these texts as they are.
fn signed_by(pair: &Pair, header: &str, payload: impl AsRef<[u8]>) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &pair.encoding, pair.algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn good_payload() -> String {
    claims().to_string()
}

/// The good payload without its closing brace, for members that come after it.
fn open_payload() -> String {
    good_payload().trim_end_matches('}').to_owned()
}

const EC_HEADER: &str = r#"{"alg":"ES256","kid":"ec"}"#;

impl Ring {
    fn new() -> Self {
        let files = Files::new();
        let (rsa, ec, ed, foreign) = (rsa_pair(aws_lc_rs::rsa::KeySize::Rsa2048), ec_pair(), ed_pair(), ec_pair());
        let small_order = encode([&[1][..], &[0; 31]].concat());
        let set = json!({"keys": [
            jwk(&rsa, &json!({"kid": "rsa"})),
            jwk(&ec, &json!({"kid": "ec"})),
            jwk(&ed, &json!({"kid": "ed"})),
            {"kty": "RSA", "kid": "short", "n": encode(modulus(1024)), "e": "AQAB"},
            {"kty": "RSA", "kid": "tiny", "n": encode([0xf1]), "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "small", "x": small_order},
            {"kty": "oct", "kid": "oct", "k": encode(SECRET)},
        ]});
        let authenticator = authenticator(&settings(KeySource::JwksFile(files.write(set.to_string()))));
        Self { rsa, ec, ed, foreign, authenticator }
    }

    fn judge(&self, token: &str) -> Result<(), u16> {
        self.authenticator.judge(&[format!("Bearer {token}").as_bytes()]).map(drop).map_err(|refusal| refusal.code.number())
    }

    /// Each of these gets the code, the second time too, and nothing of it is remembered.
    fn refuses(&self, code: u16, attacks: impl IntoIterator<Item = (String, String)>) {
        let before = self.authenticator.keys().verified.len();
        for (name, token) in attacks {
            assert_eq!(self.judge(&token), Err(code), "{name}: {token}");
            assert_eq!(self.judge(&token), Err(code), "{name}, again");
        }
        assert_eq!(self.authenticator.keys().verified.len(), before);
        assert_eq!(self.judge(&self.ec(EC_HEADER)), Ok(()), "the good one is accepted all the same");
    }

    /// A token with this header, signed with the P-256 key.
    fn ec(&self, header: &str) -> String {
        signed_by(&self.ec, header, good_payload())
    }

    /// A token with this payload, signed with the P-256 key.
    fn claiming(&self, payload: impl AsRef<[u8]>) -> String {
        signed_by(&self.ec, EC_HEADER, payload)
    }

    /// The good token with another signature.
    fn with_signature(&self, signature: impl AsRef<[u8]>) -> String {
        let token = self.ec(EC_HEADER);
        format!("{}.{}", &token[..token.rfind('.').unwrap()], encode(signature))
    }
}

fn named(attacks: Vec<String>, token: impl Fn(&str) -> String) -> impl Iterator<Item = (String, String)> {
    attacks.into_iter().map(move |attack| (attack.clone(), token(&attack)))
}

#[test]
fn an_algorithm_that_no_key_is_for_is_1002() {
    let ring = Ring::new();
    let spellings = ["none", "None", "NONE", "nOnE", "none ", "", "es256", "ES256 ", "ES256K", "ES384", "ES512", "PS256", "RSA1_5", "dir"];
    let mut headers: Vec<String> = spellings.iter().map(|alg| json!({"alg": alg, "kid": "ec"}).to_string()).collect();
    headers.extend(spellings.iter().filter(|alg| **alg != "ES256").map(|alg| json!({"alg": alg}).to_string()));
    for alg in [json!(null), json!(5), json!(true), json!(["ES256"]), json!({"ES256": 1})] {
        headers.push(json!({"alg": alg, "kid": "ec"}).to_string());
    }
    // The key of one kid with the algorithm of another.
    headers.extend(
        [("ES256", "rsa"), ("RS256", "ec"), ("EdDSA", "ec"), ("ES256", "ed"), ("PS256", "rsa"), ("RS512", "rsa")]
            .map(|(alg, kid)| json!({"alg": alg, "kid": kid}).to_string()),
    );
    ring.refuses(1002, named(headers.clone(), |header| ring.ec(header)));
    let unsigned = |header: &str| format!("{}.{}.", encode(header), encode(good_payload()));
    ring.refuses(1002, named(headers, unsigned));
}

#[test]
fn a_public_key_is_no_secret_in_whatever_form_and_by_whatever_name() {
    let ring = Ring::new();
    for pair in [&ring.rsa, &ring.ec, &ring.ed] {
        let der = pair.pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
        let member = |name: &str| pair.jwk[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
        let forms = [
            pair.pem.clone().into_bytes(),
            pair.pem.trim_end().into(),
            der,
            pair.jwk.to_string().into_bytes(),
            member("n"),
            member("x"),
            SECRET.to_vec(),
            Vec::new(),
        ];
        for (form, alg) in forms.iter().flat_map(|form| [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].map(|alg| (form, alg))) {
            let forged = |kid: Option<&str>| {
                let header = Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
                jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(form)).unwrap()
            };
            let kids = [None, Some("rsa"), Some("ec"), Some("ed"), Some("oct"), Some("new")];
            ring.refuses(1002, kids.map(|kid| (format!("{alg:?} {kid:?}"), forged(kid))));
        }
    }
}

#[test]
fn keys_in_the_header_count_for_nothing() {
    let ring = Ring::new();
    let foreign = &ring.foreign.jwk;
    let members = [
        json!({"jwk": foreign}),
        json!({"jku": "https://evil.example/jwks"}),
        json!({"x5u": "https://evil.example/x"}),
        json!({"x5c": ["AAAA"], "x5t": "AAAA"}),
        json!({"b64": false}),
        json!({"cty": "JWT", "zip": "DEF"}),
    ];
    let headers = |kid: bool| {
        let header = move |more: &Value| {
            let mut header = json!({"alg": "ES256"});
            header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            if kid {
                header["kid"] = json!("ec");
            }
            header.to_string()
        };
        members.iter().map(header).collect::<Vec<_>>()
    };
    for header in headers(true).into_iter().chain(headers(false)) {
        assert_eq!(ring.judge(&signed_by(&ring.foreign, &header, good_payload())), Err(1003), "{header}");
        assert_eq!(ring.judge(&ring.ec(&header)), Ok(()), "{header}");
    }
}

#[test]
fn a_header_that_is_not_acceptable_is_1002_although_the_signature_is_good() {
    let ring = Ring::new();
    let mut headers: Vec<String> = [
        "",
        "{",
        "[]",
        "5",
        "null",
        r#""ES256""#,
        r#"{"alg":"ES256"}x"#,
        "\u{feff}{\"alg\":\"ES256\"}",
        r#"{"alg":"ES256","crit":[]}"#,
        r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"ES256","crit":null}"#,
        r#"{"alg":"ES256","typ":"logout+jwt"}"#,
        r#"{"alg":"ES256","typ":["JWT"]}"#,
        // What is read first and what is read last might be two headers.
        r#"{"alg":"none","alg":"ES256"}"#,
        r#"{"alg":"ES256","alg":"ES256"}"#,
        r#"{"alg":"ES256","\u0061lg":"none"}"#,
        r#"{"alg":"ES256","kid":"ec","kid":"rsa"}"#,
        r#"{"alg":"ES256","x":{"a":1,"a":1}}"#,
        r#"{"alg":"ES256","x":[{"a":1,"a":1}]}"#,
    ]
    .map(str::to_owned)
    .into();
    let kids = [
        json!(""),
        json!("EC"),
        json!("ec "),
        json!("ec\u{0}"),
        json!("../../../../dev/null"),
        json!("/dev/null"),
        json!("file:///dev/null"),
        json!("' OR '1'='1"),
        json!("ec'; DROP TABLE scopes; --"),
        json!("https://evil.example/key"),
        json!("$(id)"),
        json!("%00"),
        json!("x".repeat(4096)),
        json!(null),
        json!(0),
        json!(true),
        json!(["ec"]),
        json!({"ec": 1}),
        // Keys of the set that can verify nothing.
        json!("oct"),
        json!("short"),
        json!("tiny"),
        json!("small"),
    ];
    headers.extend(kids.iter().map(|kid| json!({"alg": "ES256", "kid": kid}).to_string()));
    ring.refuses(1002, named(headers, |header| ring.ec(header)));
    let forged = [&[1][..], &[0; 63]].concat();
    let weak = [("EdDSA", "small", forged), ("RS256", "short", vec![1; 128]), ("RS256", "tiny", vec![1])];
    ring.refuses(
        1002,
        weak.map(|(alg, kid, signature)| {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            (kid.to_owned(), format!("{}.{}.{}", encode(header), encode(good_payload()), encode(signature)))
        }),
    );
}

#[test]
fn what_is_no_canonical_base64url_in_three_parts_is_1001() {
    let ring = Ring::new();
    let good = ring.ec(EC_HEADER);
    let parts: Vec<&str> = good.split('.').collect();
    let mut attacks = Vec::new();
    for index in 0..3 {
        let with = |part: String| {
            let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            parts[index] = part;
            parts.join(".")
        };
        let part = parts[index];
        for odd in ["=", "==", "A", "+", "/", "\n", "%3D", "é", ","] {
            // Whole groups of four and one character are no base64.
            let fitting = if odd == "A" { &part[..part.len() / 4 * 4] } else { part };
            attacks.push(with(format!("{fitting}{odd}")));
            if odd != "A" {
                attacks.push(with(format!("{odd}{}", &part[1..])));
            }
        }
        // Other last bits, which decode to the same bytes.
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        if !bytes.len().is_multiple_of(3) {
            let last = part.chars().last().unwrap();
            let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
            attacks.push(with(format!("{}{next}", &part[..part.len() - 1])));
        }
    }
    assert!(attacks.len() > 3 * 17, "the signature at least has such bits");
    let unencoded = format!("{}.{}.{}", parts[0], good_payload(), parts[2]);
    let encrypted = [parts[0], "", parts[1], parts[2], parts[2]].join(".");
    let json = json!({"payload": parts[1], "protected": parts[0], "signature": parts[2]}).to_string();
    attacks.extend([
        unencoded,
        encrypted,
        json,
        format!("{good}."),
        format!(".{good}"),
        parts[..2].join("."),
        parts[0].to_owned(),
        ".".into(),
        "....".into(),
    ]);
    // A space would make two words of it.
    ring.refuses(1001, named(attacks, str::to_owned));
    ring.refuses(1002, named(vec![format!(".{}.{}", parts[1], parts[2]), "..".into()], str::to_owned));
    ring.refuses(1003, named(vec![format!("{}..{}", parts[0], parts[2])], str::to_owned));
}

/// The order of P-256's group.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
    0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// The order of Ed25519's group, with the last byte first.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x10,
];

/// An INTEGER of DER.
fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let sign: &[u8] = if bytes[zeros] & 0x80 == 0 { &[] } else { &[0] };
    let content = [sign, &bytes[zeros..]].concat();
    [&[2, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
}

#[test]
fn a_signature_that_is_not_the_keys_is_1003() {
    let ring = Ring::new();
    let signature = |token: &str| URL_SAFE_NO_PAD.decode(&token[token.rfind('.').unwrap() + 1..]).unwrap();
    let good = signature(&ring.ec(EC_HEADER));
    let (r, s) = good.split_at(32);
    let (zero, mut one) = ([0; 32], [0; 32]);
    one[31] = 1;
    let sequence = [der_integer(r), der_integer(s)].concat();
    let p384 = ec_pair_on(&aws_lc_rs::signature::ECDSA_P384_SHA384_ASN1_SIGNING, "P-384", Algorithm::ES384);
    let attacks = vec![
        ("empty", vec![]),
        ("r and s are zero", [zero, zero].concat()),
        ("r is zero", [&zero, s].concat()),
        ("s is zero", [r, &zero].concat()),
        ("r and s are the order", [P256_ORDER, P256_ORDER].concat()),
        ("r is the order", [&P256_ORDER, s].concat()),
        ("s is the order", [r, &P256_ORDER].concat()),
        ("r and s are one", [one, one].concat()),
        ("all ones", vec![0xff; 64]),
        ("cut by a byte", good[..63].to_vec()),
        ("r alone", r.to_vec()),
        ("a byte too many", [&good[..], &[0]].concat()),
        ("a byte before", [&[0], &good[..]].concat()),
        ("twice", good.repeat(2)),
        ("r and s in the other order", [s, r].concat()),
        ("DER", [&[0x30, u8::try_from(sequence.len()).unwrap()], sequence.as_slice()].concat()),
        ("DER of zeros", vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        ("another token's", signature(&ring.claiming(with("sub", json!("other")).to_string()))),
        ("another key's", signature(&signed_by(&ring.foreign, EC_HEADER, good_payload()))),
        ("another curve's", signature(&signed_by(&p384, EC_HEADER, good_payload()))),
        ("another kind's", signature(&signed_by(&ring.ed, EC_HEADER, good_payload()))),
        ("a long one", vec![1; 4096]),
    ];
    ring.refuses(1003, attacks.into_iter().map(|(name, signature)| (name.to_owned(), ring.with_signature(signature))));
    for (position, bit) in (0..64).flat_map(|position| [1, 0x80].map(|bit| (position, bit))) {
        let mut flipped = good.clone();
        flipped[position] ^= bit;
        assert_eq!(ring.judge(&ring.with_signature(flipped)), Err(1003), "{position} {bit}");
    }
    for (header, pair, others) in [
        (
            r#"{"alg":"RS256","kid":"rsa"}"#,
            &ring.rsa,
            vec![vec![], vec![0; 256], vec![1; 256], [vec![0; 255], vec![1]].concat(), vec![0xff; 256], vec![0; 1]],
        ),
        (r#"{"alg":"EdDSA","kid":"ed"}"#, &ring.ed, vec![vec![], vec![0; 64], [&[1][..], &[0; 63]].concat(), vec![0xff; 64], vec![0; 32]]),
    ] {
        let token = signed_by(pair, header, good_payload());
        assert_eq!(ring.judge(&token), Ok(()));
        let good = signature(&token);
        let mut others =
            [others, vec![good[1..].to_vec(), good[..good.len() - 1].to_vec(), [&good[..], &[0]].concat(), [&[0], &good[..]].concat()]]
                .concat();
        if pair.algorithm == Algorithm::EdDSA {
            // The same signature with the group's order added to it (RFC 8032, 5.1.7).
            let (mut malleated, mut carry) = (good.clone(), 0);
            for (byte, order) in malleated[32..].iter_mut().zip(ED25519_ORDER) {
                let sum = u16::from(*byte) + u16::from(order) + carry;
                (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
            }
            others.push(malleated);
        }
        let signed = &token[..token.rfind('.').unwrap()];
        ring.refuses(1003, others.into_iter().map(|other| (format!("{other:?}"), format!("{signed}.{}", encode(other)))));
    }
}

#[test]
fn a_payload_that_cannot_be_read_in_one_way_alone_is_1004() {
    let ring = Ring::new();
    let open = open_payload();
    let inner = ring.ec(EC_HEADER);
    let mut payloads: Vec<Vec<u8>> = [
        "",
        "5",
        "[]",
        "null",
        "{",
        "\"a\"",
        &inner,
        &format!("\"{inner}\""),
        &format!("[{}]", good_payload()),
        &format!("{open}}}x"),
        &format!("\u{feff}{}", good_payload()),
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for more in [
        r#","exp":1"#,
        r#","\u0065xp":1"#,
        r#","sub":"me""#,
        r#","zones":["*"]"#,
        r#","x":{"a":1,"a":2}"#,
        r#","x":[[{"a":1,"a":2}]]"#,
        r#","x":1e400"#,
        r#","x":"\ud800""#,
        r#","x":01"#,
        r#","x":NaN"#,
        ",",
        &format!(r#","x":{}1{}"#, "[".repeat(200), "]".repeat(200)),
    ] {
        payloads.push(format!("{open}{more}}}").into_bytes());
    }
    payloads.push([open.as_bytes(), b",\"x\":\"\xff\"}"].concat());
    ring.refuses(1004, payloads.into_iter().map(|payload| (String::from_utf8_lossy(&payload).into_owned(), ring.claiming(payload))));
}

#[test]
fn a_time_of_any_type_has_its_code() {
    let ring = Ring::new();
    let outcome = |name: &str, value: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        let open = claims.to_string().trim_end_matches('}').to_owned();
        ring.judge(&ring.claiming(format!(r#"{open},"{name}":{value}}}"#)))
    };
    let near = (NOW_SECS + 10).to_string();
    let text = format!("\"{near}\"");
    // Value, and what exp, nbf and iat get.
    let rows: [(&str, [Result<(), u16>; 3]); 22] = [
        (&near, [Ok(()), Ok(()), Ok(())]),
        (&format!("{near}.5"), [Ok(()), Ok(()), Ok(())]),
        ("1.80000001e9", [Ok(()), Ok(()), Ok(())]),
        (&text, [Err(1004); 3]),
        ("\"\"", [Err(1004); 3]),
        ("\"never\"", [Err(1004); 3]),
        ("true", [Err(1004); 3]),
        ("false", [Err(1004); 3]),
        ("[]", [Err(1004); 3]),
        (&format!("[{near}]"), [Err(1004); 3]),
        ("{}", [Err(1004); 3]),
        ("1e400", [Err(1004); 3]),
        ("-1e400", [Err(1004); 3]),
        ("null", [Err(1005), Ok(()), Ok(())]),
        ("0", [Err(1003), Ok(()), Ok(())]),
        ("-0", [Err(1003), Ok(()), Ok(())]),
        ("-1", [Err(1003), Ok(()), Ok(())]),
        ("-1e300", [Err(1003), Ok(()), Ok(())]),
        ("1e300", [Err(1004), Err(1003), Ok(())]),
        ("18446744073709551616", [Err(1004), Err(1003), Ok(())]),
        ("9223372036854775807", [Err(1004), Err(1003), Ok(())]),
        (&format!("{near}000"), [Ok(()), Err(1003), Ok(())]),
    ];
    for (value, expected) in rows {
        assert_eq!(["exp", "nbf", "iat"].map(|name| outcome(name, value)), expected, "{value}");
    }
}

#[test]
fn a_zone_or_a_subject_that_is_not_what_it_must_be_is_1004() {
    let ring = Ring::new();
    let with = |name: &'static str| move |value: Value| (format!("{name} {value}"), with(name, value).to_string());
    let zones =
        [json!("*"), json!("z"), json!([["*"]]), json!([null]), json!(["z", 5]), json!({"0": "*"}), json!({"length": 1}), json!(true)];
    let subjects = [
        json!(""),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("a\u{9b}b"),
        json!("a\u{7f}"),
        json!("x".repeat(256)),
        json!(5),
        json!(["me"]),
        json!({}),
    ];
    let attacks = zones
        .clone()
        .into_iter()
        .map(with("zones"))
        .chain(zones.into_iter().map(with("accounts")))
        .chain(subjects.into_iter().map(with("sub")));
    ring.refuses(1004, attacks.map(|(name, payload)| (name, ring.claiming(payload))));
}
