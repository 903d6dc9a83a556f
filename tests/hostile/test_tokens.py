"""Tokens made by hand: none is accepted that nobody with the key has signed for just this, and each is refused with its own code."""

import base64
import datetime
import hashlib
import hmac
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from attack import chance, check_unharmed
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from harness import SECRET, Answer, Csrd, binary, codes, environment, wait_until

SHA256 = hashes.SHA256()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
B64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64(content: bytes | str) -> str:
    content = content if isinstance(content, bytes) else content.encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def as_text(value) -> bytes | str:
    """A part of a token: JSON of a value, or text and bytes as they are."""
    return value if isinstance(value, bytes | str) else json.dumps(value)


def claims(**changes) -> dict:
    """Claims that are accepted; one changed to `...` is left out."""
    made = {"sub": "tester", "exp": int(time.time()) + 3600, "zones": ["z"]} | changes
    return {name: value for name, value in made.items() if value is not ...}


def hs(secret: bytes, digest: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda signed: hmac.new(secret, signed, digest).digest()


SIGN = hs(SECRET.encode())


def token(header, payload, sign: Callable[[bytes], bytes] = SIGN) -> str:
    signed = f"{b64(as_text(header))}.{b64(as_text(payload))}"
    return f"{signed}.{b64(sign(signed.encode()))}"


HS256 = {"alg": "HS256", "typ": "JWT"}


class Judge:
    """A service that judges tokens, and its zone `z`."""

    def __init__(self, csrd: Csrd):
        self.csrd = csrd

    def answer(self, made: str) -> Answer:
        return self.csrd.request("GET", "/api/v4/zones/z/custom_csrs", headers={"Authorization": b"Bearer " + made.encode()})

    def code(self, made: str) -> int:
        """The code of the refusal, 0 if the token is accepted."""
        answer = self.answer(made)
        assert answer.status in (200, 401, 403), (made, answer)
        return codes(answer.envelope)[0] if answer.status != 200 else 0

    def codes(self, cases: dict[str, str]) -> dict[str, int]:
        return {name: self.code(made) for name, made in cases.items()}

    def refuses(self, code: int, cases: dict[str, str]) -> None:
        """Refuses every token with this code."""
        assert {name: found for name, found in self.codes(cases).items() if found != code} == {}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts services whose keys for tokens are in a file."""
    made = []

    def new(option: str, content: bytes | str, *arguments: str) -> Judge:
        directory = tmp_path_factory.mktemp("tokens")
        path = directory / "keys"
        path.touch(0o600)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options = ("--workers", "0", "--auth-failure-limit", "0", option, str(path), *arguments)
        made.append(Csrd(directory / "csrd", *options).start(ready=False))
        made[-1].ok("zone", "grant", "z", "--quota", "5")
        return Judge(made[-1])

    try:
        yield new
        for csrd in made:
            check_unharmed(csrd)
    finally:
        for csrd in made:
            csrd.close()


@pytest.fixture(scope="module")
def secret(start) -> Judge:
    judge = start("--jwt-secret-file", SECRET + "\n")
    assert judge.code(token(HS256, claims())) == 0
    return judge


# Headers


def test_no_spelling_of_none_is_an_algorithm(secret):
    spellings = [
        "none", "None", "NONE", "nOnE", "NoNe", "nONE", " none", "none ", "none\0", "none\n", "\tnone", "n\u00f6ne", "\uff4e\uff4f\uff4e\uff45",
        "n\u043ene", "none,HS256", "", "null", "HS256none", "NONE\u200b",
    ]  # fmt: skip
    headers = {repr(alg): {"alg": alg} for alg in spellings}
    headers |= {"escaped": '{"alg":"n\\u006fne"}', "none, with HS256 as typ": {"alg": "none", "typ": "HS256"}}
    signatures = {"none": lambda _: b"", "right": SIGN, "one byte": lambda _: b"\0", "zeros": lambda _: bytes(32)}
    cases = {f"{alg}, {name}": token(header, claims(), sign) for alg, header in headers.items() for name, sign in signatures.items()}
    assert len(cases) == 84
    secret.refuses(1002, cases)


def test_a_header_that_is_no_header_is_1002_whatever_its_signature(secret):
    whole = json.dumps(HS256)
    headers = {
        "no JSON": "x", "empty": "", "null": "null", "a number": "5", "a string": '"HS256"', "an array": json.dumps([HS256]), "true": "true",
        "cut": whole[:-1], "two": whole + whole, "a byte order mark": "\ufeff" + whole, "a NUL": whole + "\0", "no UTF-8": b'{"alg":"HS256","x":"\xff"}',
        "UTF-16": whole.encode("utf-16"), "no alg": {"typ": "JWT"}, "deep": '{"alg":"HS256","x":' + "[" * 3000 + "]" * 3000 + "}",
        "a comma too many": '{"alg":"HS256",}', "single quotes": "{'alg':'HS256'}", "a lone surrogate": '{"alg":"HS256","x":"\\ud800"}',
    }  # fmt: skip
    headers |= {f"alg {alg!r}": {"alg": alg} for alg in (None, 5, True, [], {}, ["HS256"], {"HS256": 1}, 256.0)}
    headers |= {f"alg {alg!r}": {"alg": alg} for alg in ("hs256", "HS256 ", "HS 256", "HMAC", "SHA256", "HS255", "HS1", "dir", "A256KW")}
    headers |= {f"kid {kid!r}": HS256 | {"kid": kid} for kid in (5, True, [], {}, ["k"])}
    headers |= {f"typ {typ!r}": HS256 | {"typ": typ} for typ in (5, True, [], {})}
    headers |= {f"crit {crit!r}": HS256 | {"crit": crit} for crit in ([], ["exp"], ["b64"], ["alg"], "exp", 5, {}, True, ["x"] * 100)}
    headers["crit that is there"] = HS256 | {"crit": ["x"], "x": 1}
    secret.refuses(1002, {name: token(header, claims()) for name, header in headers.items()})


def test_a_repeated_member_of_a_header_is_1002(secret):
    headers = [
        '{"alg":"none","alg":"HS256"}', '{"alg":"HS256","alg":"none"}', '{"alg":"HS256","alg":"HS256"}', '{"alg":"HS256","\\u0061lg":"HS256"}',
        '{"alg":"HS256","kid":"a","kid":"b"}', '{"alg":"HS256","x":1,"x":1}', '{"alg":"HS256","x":{"y":1,"y":1}}',
    ]  # fmt: skip
    secret.refuses(1002, {header: token(header, claims()) for header in headers})


def test_an_unencoded_payload_is_not_what_was_signed(secret):
    """RFC 7797: with `b64` false the signature is over the payload itself."""
    payload = json.dumps(claims())
    for header in (HS256 | {"b64": False}, HS256 | {"b64": False, "crit": ["b64"]}):
        head = b64(json.dumps(header))
        signature = b64(SIGN(f"{head}.{payload}".encode()))
        assert secret.code(f"{head}.{b64(payload)}.{signature}") in (1002, 1003)
        # The payload as it is has dots and quotes: it is no token.
        assert secret.code(f"{head}.{payload.replace(' ', '')}.{signature}") == 1001


@pytest.mark.parametrize("what", ["secret", "public"])
def test_a_key_that_the_token_brings_along_or_points_to_is_not_used(secret, keys, what):
    """Nor is anything fetched, read or asked for."""
    judge = secret if what == "secret" else keys
    mine = rsa.generate_private_key(65537, 2048)
    public = mine.public_key()
    name = x509.Name([])
    moment = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public).serial_number(1)
    certificate = builder.not_valid_before(moment).not_valid_after(moment + datetime.timedelta(days=1)).sign(mine, SHA256)
    jwk = rsa_jwk(public)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        visits = []
        listener.settimeout(0.2)
        over = threading.Event()

        def listen():
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                visits.append(1)
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
            x5c = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
            brought = [{"jwk": jwk}, {"jku": url}, {"x5u": url}, {"x5c": x5c}, {"jwk": jwk, "jku": url, "x5u": url, "x5c": x5c}]
            kids = [{}, {"kid": "rsa"}, {"kid": "mine"}, {"kid": url}, {"kid": "file:///dev/null"}]
            sign = rs(mine)
            for more in brought:
                for kid in kids:
                    for alg, by in (("RS256", sign), ("HS256", hs(b"")), ("HS256", hs(json.dumps(jwk).encode()))):
                        code = judge.code(token({"alg": alg} | more | kid, claims(), by))
                        assert code in (1002, 1003), (alg, more, kid, code)
        finally:
            over.set()
            thread.join()
        assert visits == []


PATHS_AND_SQL = [
    "", "/dev/null", "../../../../../../dev/null", "file:///dev/null", "/proc/self/environ", "master.key", "signing.key", "keys", "' OR '1'='1", "' UNION SELECT 'x",
    "x'; DROP TABLE scopes; --", "\" OR 1=1 --", "$(id)", "`id`", "|id", "%00", "\0", "rsa\0", "rsa ", "RSA", "*", "x" * 5000,
]  # fmt: skip


def test_a_key_id_that_is_a_path_or_a_statement_selects_no_key(secret, keys):
    for kid in PATHS_AND_SQL:
        # Whoever could point at an empty file, or have a statement give a value, would sign with that.
        for key in (b"", b"x", b"\0", b"1"):
            assert secret.code(token(HS256 | {"kid": kid}, claims(), hs(key))) == 1003, (kid, key)
            assert keys.code(token(HS256 | {"kid": kid}, claims(), hs(key))) == 1002, (kid, key)
        assert keys.code(token({"alg": "RS256", "kid": kid}, claims(), keys.signers["RS256"])) == 1002, kid


# What was signed


def test_no_changed_character_goes_unnoticed_before_and_after_the_token_is_known(secret):
    random = chance("flips")
    payload = claims(sub="flips", zones=["z", "y"])
    known, unknown = token(HS256, payload), token(HS256, payload | {"sub": "flipped"})
    assert secret.code(known) == 0
    for number in range(240):
        made = known if number % 2 else unknown
        place, bit = random.randrange(len(made)), 1 << random.randrange(7)
        changed = chr(ord(made[place]) ^ bit)
        if not "!" <= changed <= "~":
            changed = random.choice([c for c in B64URL if c != made[place]])
        code = secret.code(made[:place] + changed + made[place + 1 :])
        assert code in (1001, 1002, 1003), (code, place, changed)
    assert secret.code(known) == 0 and secret.code(unknown) == 0


def test_a_character_more_or_less_makes_another_token(secret):
    made = token(HS256, claims(sub="more or less"))
    assert secret.code(made) == 0
    header, payload, signature = made.split(".")
    cases = {f"cut by {n}": made[:-n] for n in (1, 2, 4, 20, 42)} | {f"longer by {n}": made + "A" * n for n in (1, 2, 4, 43)}
    cases |= {"a part more": made + "." + signature, "a dot more": made + ".", "a dot before": "." + made, "twice": f"{made}.{made}"}
    cases |= {"in another order": f"{payload}.{header}.{signature}", "no payload": f"{header}..{signature}", "no header": f".{payload}.{signature}"}
    for name, code in secret.codes(cases).items():
        assert code in (1001, 1002, 1003), (name, code)


@pytest.mark.parametrize("when", ["before", "after"])
def test_base64_has_one_spelling_before_and_after_the_token_is_known(secret, when):
    # Lengths with spare bits, and characters of which the other alphabet has its own.
    number, parts = 0, []
    while not (parts and all(len(part) % 4 for part in parts) and "-" in parts[2] and "_" in parts[2]):
        number += 1
        parts = token({"alg": "HS256", "n": "x" * (number % 3)}, claims(sub=f"{when} {number}")).split(".")
    if when == "after":
        assert secret.code(".".join(parts)) == 0
    cases = {}
    for index, part in enumerate(parts):
        spare = {2: 4, 3: 2}[len(part) % 4]
        last = B64URL.index(part[-1])
        others = {f"spare bits {n}": part[:-1] + B64URL[last + n] for n in range(1, 1 << spare)}
        others |= {"padding": part + "=" * (4 - len(part) % 4), "padding too long": part + "===", "padding first": "=" + part}
        others |= {"another alphabet": part.replace("-", "+").replace("_", "/"), "a percent": part[:5] + "%" + part[5:]}
        others |= {"a comma": part[:5] + "," + part[5:], "a quote": part + '"', "a character beyond ASCII": part + "\u00e9"}
        cases |= {f"part {index}: {name}": ".".join([*parts[:index], other, *parts[index + 1 :]]) for name, other in others.items() if other != part}
    assert len(cases) > 30
    secret.refuses(1001, cases)
    assert secret.code(".".join(parts)) == 0


# Claims

WRONG_TYPES = {
    "exp": ["1", "", True, [], {}, ["9999999999"], "2099-01-01T00:00:00Z"],
    "nbf": ["1", True, [], {}],
    "iat": ["1", True, [], {}],
    "sub": [5, True, [], {}, ["tester"], 0.5],
    "iss": [5, True, [], {}, ["x"]],
    "aud": [5, True, {}, [5], [None], [["x"]]],
    "zones": ["z", "*", 5, True, {}, {"z": 1}, [5], [None], [["z"]], [["*"]], ["z", 5], [{"id": "z"}], [True]],
    "accounts": ["z", "*", 5, True, {}, [5], [None], [["a"]]],
    "scope": [5, True, {}, [5], [None]],
}


def test_a_claim_of_a_wrong_type_is_1004(secret):
    cases = {f"{name} {value!r}": token(HS256, claims(**{name: value})) for name, values in WRONG_TYPES.items() for value in values}
    secret.refuses(1004, cases)


def test_a_payload_that_is_no_object_is_1004(secret):
    whole = json.dumps(claims())
    payloads = {
        "empty": "", "null": "null", "a number": "5", "a string": '"x"', "an array": f"[{whole}]", "cut": whole[:-1], "two": whole + whole,
        "a NUL": whole + "\0", "no UTF-8": whole.encode().replace(b"tester", b"\xff"), "UTF-16": whole.encode("utf-16"), "NaN": whole.replace('"z"', "NaN"),
        "exp NaN": '{"sub":"t","zones":["z"],"exp":NaN}', "exp Infinity": '{"sub":"t","zones":["z"],"exp":Infinity}',
        "exp 1e999": '{"sub":"t","zones":["z"],"exp":1e999}', "exp 0x7fffffff": '{"sub":"t","zones":["z"],"exp":0x7fffffff}',
        "a lone surrogate": whole.replace("tester", "\\ud800"), "a byte order mark": "\ufeff" + whole, "deep": '{"x":' + "[" * 5000 + "]" * 5000 + "}",
        "a newline in a string": whole.replace("tester", "a\nb"),
    }  # fmt: skip
    secret.refuses(1004, {name: token(HS256, payload) for name, payload in payloads.items()})


def test_a_repeated_member_of_a_payload_is_1004(secret):
    base = '{"sub":"t","exp":9999999999,"zones":["z"]'
    members = ['"zones":["*"]', '"zones":["z"]', '"exp":1', '"exp":9999999999', '"sub":"other"', '"\\u007aones":["z"]', '"x":1,"x":1', '"x":{"y":1,"y":1}']
    secret.refuses(1004, {member: token(HS256, f"{base},{member}}}") for member in members})


def test_a_subject_that_names_nobody_is_1004(secret):
    subjects = ["", "x" * 256, "a\nb", "a\0b", "a\x1b[31mb", "a\x7fb", "a\u0085b", "\u20ac" * 256]
    secret.refuses(1004, {repr(sub)[:30]: token(HS256, claims(sub=sub)) for sub in subjects})
    for sub in ("x", "x" * 255, "\u20ac" * 255, "os:root", "' OR 1=1 --", "../..", "\U0001f511"):
        assert secret.code(token(HS256, claims(sub=sub))) == 0, sub


def test_an_absent_claim_is_1005_and_null_is_absent(secret):
    for value in (..., None):
        cases = {name: token(HS256, claims(**{name: value})) for name in ("exp", "sub", "zones")}
        cases["zones and accounts"] = token(HS256, claims(zones=value, accounts=value))
        secret.refuses(1005, cases)
    secret.refuses(1005, {name: token(HS256, claims(**{name: ..., other: ["z"]})) for name, other in (("zones", "Zones"), ("zones", "zone"), ("zones", "zones "))})


def test_a_time_that_is_not_now_is_1003(secret):
    now = time.time()
    cases = {f"exp {exp!r}": claims(exp=exp) for exp in (0, -1, 1, -1e308, now - 61, 0.0, -0.0, 1e-308, -(2**63), -(2**64))}
    cases |= {f"nbf {nbf!r}": claims(nbf=nbf) for nbf in (now + 120, 2**31, 2**53, 2**63, 2**64, 1e300, 9999999999999)}
    secret.refuses(1003, {name: token(HS256, payload) for name, payload in cases.items()})


def test_only_an_asterisk_alone_stands_for_every_zone(secret):
    assert secret.code(token(HS256, claims(zones=["*"]))) == 0
    lookalikes = [
        "**", "*.", ".*", "*z", "z*", "z-*", " *", "* ", "*\0", "*\n", "\u2217", "\uff0a", "\u204e", "\u066d", "\u2731", "*\u200b", "%2A", "[*]", "?", "_", "%", "Z",
        "z ", " z", "z\0", "z\n", "\uff5a", "\u200bz", "z,*", "z/*", "zones/z", "/z", "../z", "z/../z", "", "null", "[a-z]", "{z}", "true", "all", "any",
    ]  # fmt: skip
    assert {zone: code for zone in lookalikes if (code := secret.code(token(HS256, claims(zones=[zone])))) != 1404} == {}
    assert secret.code(token(HS256, claims(zones=lookalikes))) == 1404
    # Nor do other claims, or a name of the claim in another case.
    for other in ({"accounts": ["*"], "zones": []}, {"accounts": ["z"], "zones": ["y"]}, {"zones": [], "Zones": ["*"]}, {"zones": [], "scope": "*"}):
        assert secret.code(token(HS256, claims(**other))) == 1404, other


def test_a_scope_that_is_none_of_ours_allows_nothing(secret):
    for scope in ("", " ", "*", "custom_csrs", "custom_csrs:*", "CUSTOM_CSRS:READ", "custom_csrs:read,custom_csrs:write", "custom_csrs:reader", "xcustom_csrs:read",
                  "custom_csrs:read\0", "custom_csrs:read\n", "custom_csrs\uff1aread", "admin", "custom_csrs:readcustom_csrs:write"):  # fmt: skip
        assert secret.code(token(HS256, claims(scope=scope))) == 1404, scope
    assert secret.code(token(HS256, claims(scope="openid custom_csrs:read"))) == 0


def test_a_huge_token_is_judged_or_refused_and_costs_nobody_anything(secret):
    many = claims(zones=[f"zone-{n}" for n in range(700)] + ["z"])
    assert secret.code(token(HS256, many)) == 0
    assert secret.code(token(HS256, many | {"zones": many["zones"][:-1]})) == 1404
    for size in (16_000, 20_000, 40_000):
        for header, payload in ((HS256 | {"x": "y" * size}, claims()), (HS256, claims(x="y" * size)), (HS256, claims(sub="y" * size))):
            assert secret.code(token(header, payload)) in (0, 1001, 1002, 1004)
        assert secret.code("a" * size) == 1001 and secret.code("." * size) == 1001
        assert secret.code(f"{b64(json.dumps(HS256))}.{b64(json.dumps(claims()))}.{'A' * size}") in (1001, 1003)
    for depth in (100, 1000, 5000):
        deep = json.dumps(claims())[:-1] + ',"x":' + "[" * depth + "]" * depth + "}"
        assert secret.code(token(HS256, deep)) in (0, 1004)


# Keys and algorithms


def rs(key: rsa.RSAPrivateKey, digest=SHA256) -> Callable[[bytes], bytes]:
    return lambda signed: key.sign(signed, padding.PKCS1v15(), digest)


def ps(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda signed: key.sign(signed, padding.PSS(padding.MGF1(SHA256), 32), SHA256)


def es(key: ec.EllipticCurvePrivateKey, digest=SHA256) -> Callable[[bytes], bytes]:
    size = (key.key_size + 7) // 8

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8 or 1, "big"))


def rsa_jwk(key: rsa.RSAPublicKey) -> dict:
    numbers = key.public_numbers()
    return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}


def ec_jwk(key: ec.EllipticCurvePublicKey, crv: str = "P-256") -> dict:
    numbers, size = key.public_numbers(), (key.key_size + 7) // 8
    return {"kty": "EC", "crv": crv, "x": number(numbers.x, size), "y": number(numbers.y, size)}


def ed_jwk(raw: bytes) -> dict:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}


def spki(key, encoding: Encoding = Encoding.PEM) -> bytes:
    return key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


# One private key of each kind.
KEYS = SimpleNamespace(
    rsa=rsa.generate_private_key(65537, 2048),
    ec=ec.generate_private_key(ec.SECP256R1()),
    p384=ec.generate_private_key(ec.SECP384R1()),
    ed=ed25519.Ed25519PrivateKey.generate(),
)
ED_RAW = KEYS.ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
JWKS = {
    "rsa": rsa_jwk(KEYS.rsa.public_key()), "ec": ec_jwk(KEYS.ec.public_key()), "p384": ec_jwk(KEYS.p384.public_key(), "P-384") | {"alg": "ES384"}, "ed": ed_jwk(ED_RAW),
}  # fmt: skip
KIDS = {"RS256": "rsa", "ES256": "ec", "ES384": "p384", "EdDSA": "ed"}


@pytest.fixture(scope="module")
def keys(start) -> Judge:
    """A service with a JWK set of one key of each kind."""
    judge = start("--jwt-jwks-file", json.dumps({"keys": [jwk | {"kid": kid} for kid, jwk in JWKS.items()]}))
    judge.signers = {"RS256": rs(KEYS.rsa), "ES256": es(KEYS.ec), "ES384": es(KEYS.p384, hashes.SHA384()), "EdDSA": KEYS.ed.sign}
    for alg, sign in judge.signers.items():
        assert judge.code(token({"alg": alg, "kid": KIDS[alg]}, claims(), sign)) == 0
    return judge


def public_forms() -> dict[str, bytes]:
    """What somebody might have at hand who knows public keys only."""
    forms = {}
    for kid, private in (("rsa", KEYS.rsa), ("ec", KEYS.ec), ("ed", KEYS.ed)):
        public = private.public_key()
        text, der = spki(public), spki(public, Encoding.DER)
        forms |= {
            f"{kid} PEM": text, f"{kid} PEM without newline": text.rstrip(), f"{kid} PEM with CRLF": text.replace(b"\n", b"\r\n"), f"{kid} DER": der,
            f"{kid} base64": base64.b64encode(der), f"{kid} JWK": json.dumps(JWKS[kid]).encode(), f"{kid} SHA-256": hashlib.sha256(der).digest(),
        }  # fmt: skip
    forms["rsa PKCS#1"] = KEYS.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    forms["rsa modulus"] = KEYS.rsa.public_key().public_numbers().n.to_bytes(256, "big")
    forms["ec point"] = KEYS.ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    forms["ed point"] = ED_RAW
    return forms | {"the set": json.dumps({"keys": list(JWKS.values())}).encode(), "nothing": b""}


@pytest.mark.parametrize("source", ["set", "rsa", "ec", "ed"])
def test_no_public_key_is_a_shared_secret(start, keys, source):
    """The attack on verifiers that let the token say what kind of key theirs is."""
    judge = keys if source == "set" else start("--jwt-public-key-file", spki(getattr(KEYS, source).public_key()))
    cases = {}
    for name, form in public_forms().items():
        for digest in ("256", "384", "512"):
            for kid in (None, "rsa", "ec", "", "x"):
                header = {"alg": f"HS{digest}"} | ({} if kid is None else {"kid": kid})
                cases[f"HS{digest} {name} {kid}"] = token(header, claims(), hs(form, f"sha{digest}"))
    judge.refuses(1002, cases)


def test_a_key_verifies_its_own_algorithm_under_its_own_id_and_nothing_else(keys):
    signers = {
        "rsa RS256": rs(KEYS.rsa), "rsa RS384": rs(KEYS.rsa, hashes.SHA384()), "rsa RS512": rs(KEYS.rsa, hashes.SHA512()), "rsa PS256": ps(KEYS.rsa),
        "ec ES256": es(KEYS.ec), "ec ES384": es(KEYS.ec, hashes.SHA384()), "p384 ES384": es(KEYS.p384, hashes.SHA384()), "p384 ES256": es(KEYS.p384),
        "ed EdDSA": KEYS.ed.sign,
    }  # fmt: skip
    right = {("rsa RS256", "RS256", "rsa"), ("ec ES256", "ES256", "ec"), ("p384 ES384", "ES384", "p384"), ("ed EdDSA", "EdDSA", "ed")}
    algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448", "HS256"]
    for name, sign in signers.items():
        for alg in algorithms:
            for kid in KIDS.values():
                code = keys.code(token({"alg": alg, "kid": kid}, claims(), sign))
                expected = 0 if (name, alg, kid) in right else 1003 if KIDS.get(alg) == kid else 1002
                assert code == expected, (name, alg, kid, code)


def test_a_signature_that_nobody_computed_is_1003(keys):
    def fixed(value: bytes) -> Callable[[bytes], bytes]:
        return lambda _: value

    n, sizes = P256_ORDER, [0, 1, 32, 63, 65, 66, 96, 128, 256]
    values = {"0": 0, "1": 1, "n": n, "n-1": n - 1, "n+1": n + 1, "all ones": 2**256 - 1}
    made = {f"ES256 r={r} s={s}": ("ES256", fixed(values[r].to_bytes(32, "big") + values[s].to_bytes(32, "big"))) for r in values for s in values}
    made |= {f"{alg} zeros {size}": (alg, fixed(bytes(size))) for alg in KIDS for size in sizes}
    made |= {f"{alg} ones {size}": (alg, fixed(b"\xff" * size)) for alg in KIDS for size in sizes}
    made["ES256 DER"] = ("ES256", lambda signed: KEYS.ec.sign(signed, ec.ECDSA(SHA256)))
    made["ES256 longer"] = ("ES256", lambda signed: es(KEYS.ec)(signed) + b"\0")
    made["ES256 zeros between"] = ("ES256", lambda signed: b"\0".join([b"", es(KEYS.ec)(signed)[:32], es(KEYS.ec)(signed)[32:]]))
    made["ES256 shorter"] = ("ES256", lambda signed: es(KEYS.ec)(signed)[:-1])
    modulus = KEYS.rsa.public_key().public_numbers().n
    made |= {f"RS256 {name}": ("RS256", fixed(value.to_bytes(256, "big"))) for name, value in {"0": 0, "1": 1, "n-1": modulus - 1, "n": modulus}.items()}
    made["RS256 longer"] = ("RS256", lambda signed: b"\0" + rs(KEYS.rsa)(signed))
    made["RS256 shorter"] = ("RS256", lambda signed: rs(KEYS.rsa)(signed)[1:])
    made["RS256 PSS"] = ("RS256", ps(KEYS.rsa))
    made["RS256 SHA-1"] = ("RS256", rs(KEYS.rsa, hashes.SHA1()))
    made["RS256 over another token"] = ("RS256", fixed(rs(KEYS.rsa)(b"e30.e30")))

    def with_order(signed: bytes) -> bytes:
        signature = KEYS.ed.sign(signed)
        return signature[:32] + (int.from_bytes(signature[32:], "little") + ED25519_ORDER).to_bytes(32, "little")

    made["EdDSA S + L"] = ("EdDSA", with_order)
    made["EdDSA small R"] = ("EdDSA", fixed(b"\1" + bytes(63)))
    cases = {name: token({"alg": alg, "kid": KIDS[alg]}, claims(sub=name), sign) for name, (alg, sign) in made.items()}
    keys.refuses(1003, cases)


def test_a_token_is_for_its_audience_and_from_its_issuer_alone(start):
    judge = start("--jwt-secret-file", SECRET, "--jwt-issuer", "https://issuer", "--jwt-audience", "csrd")
    good = claims(iss="https://issuer", aud="csrd")
    for audience in ("csrd", ["csrd"], ["other", "csrd"], ["csrd", "csrd"]):
        assert judge.code(token(HS256, good | {"aud": audience})) == 0
    wrong = {"aud": ["", "CSRD", "csrd ", " csrd", "csrd\0", "csr", "csrdx", "*", [], ["other"], ["csr", "d"], ["csrd,other"], "https://issuer"]}
    wrong["iss"] = ["", "https://issuer/", "HTTPS://ISSUER", "https://issuer ", "http://issuer", "https://issuer.evil", "*", "csrd"]
    judge.refuses(1003, {f"{name} {value!r}": token(HS256, good | {name: value}) for name, values in wrong.items() for value in values})
    judge.refuses(1005, {f"{name} {value!r}": token(HS256, claims(**good | {name: value})) for name in wrong for value in (..., None)})


# Files of keys

SMALL_ORDER = {
    "identity": b"\1" + bytes(31),
    "order 2": bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "order 4": bytes(32),
    "order 4, other sign": bytes(31) + b"\x80",
    "order 8": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "order 8, other sign": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    "order 8, other": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "order 8, other, other sign": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    "identity, not canonical": bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    "zero, not canonical": bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
}


def weak_rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def bad_jwks() -> dict[str, dict]:
    good, point = JWKS["rsa"], JWKS["ec"]
    private = KEYS.rsa.private_numbers()
    bad = {
        "oct": {"kty": "oct", "k": b64(SECRET)}, "for encryption": good | {"use": "enc"}, "unknown kty": good | {"kty": "rsa"}, "no kty": {"n": "x"},
        "RSA of 1,024 bits": rsa_jwk(weak_rsa().public_key()), "RSA with e 1": good | {"e": number(1)}, "RSA with even e": good | {"e": number(65536)},
        "RSA with n 0": good | {"n": number(0)}, "RSA without n": {"kty": "RSA", "e": "AQAB"}, "RSA, n no base64url": good | {"n": "*"},
        "RSA, for ES256": good | {"alg": "ES256"}, "RSA, for HS256": good | {"alg": "HS256"}, "RSA, for none": good | {"alg": "none"},
        "RSA, for RSA-OAEP": good | {"alg": "RSA-OAEP"}, "P-256, not on the curve": point | {"y": number(5, 32)},
        "P-256 at infinity": point | {"x": number(0, 32), "y": number(0, 32)}, "P-256, short": point | {"x": number(1, 31)}, "P-256, no y": point | {"y": ""},
        "P-256, called P-384": point | {"crv": "P-384"}, "P-256, called secp256k1": point | {"crv": "secp256k1"}, "P-256, for RS256": point | {"alg": "RS256"},
        "P-256, for ES384": point | {"alg": "ES384"}, "Ed25519, short": ed_jwk(ED_RAW[:31]), "Ed25519, long": ed_jwk(ED_RAW + b"\0"),
        "Ed25519, called X25519": JWKS["ed"] | {"crv": "X25519"}, "RSA, to encrypt": good | {"key_ops": ["encrypt"]}, "RSA, to sign": good | {"key_ops": ["sign"]},
        "RSA, private": good | {"d": number(private.d), "p": number(private.p), "q": number(private.q)},
        "P-256, private": point | {"d": number(KEYS.ec.private_numbers().private_value, 32)}, "Ed25519, private": JWKS["ed"] | {"d": b64(b"x" * 32)},
    }  # fmt: skip
    return bad | {f"Ed25519 of small order: {name}": ed_jwk(raw) for name, raw in SMALL_ORDER.items()}


def starts(directory: Path, option: str, content: bytes) -> bool:
    """Whether the service starts with this file of keys; if it does not, it says why in its last line."""
    path, log = directory / "keys", directory / "log"
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(content)
    command = [binary(), "serve", "--workers", "0", "--listen", "127.0.0.1:0", "--data-dir", directory / "data", option, path]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment())
    try:
        wait_until(lambda: process.poll() is not None or b"listening on" in log.read_bytes(), "it listens, or refuses to")
        said = log.read_text()
        if process.poll() is None:
            return True
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2 and "panicked" not in said, said
    last = said.splitlines()[-1]
    assert last.startswith("csrd: ") and option in last and str(path) in last and SECRET not in said, said
    return False


def taken(tmp_path: Path, option: str, files: dict[str, bytes]) -> set[str]:
    """The names of the files that a service starts with."""
    assert files
    return {name for name, content in files.items() if starts(tmp_path, option, content)}


def test_a_file_of_another_kind_is_no_public_key(tmp_path):
    good, other = spki(KEYS.rsa.public_key()), spki(KEYS.ec.public_key())

    def private(key, form=PrivateFormat.PKCS8) -> bytes:
        return key.private_bytes(Encoding.PEM, form, NoEncryption())

    files = {
        "empty": b"", "garbage": b"garbage", "zeros": bytes(300), "DER": spki(KEYS.rsa.public_key(), Encoding.DER), "cut": good[: len(good) // 2],
        "no end": good.replace(b"-----END", b"-----ENDE"), "two": good + other, "another label": good.replace(b"PUBLIC KEY", b"CERTIFICATE"),
        "labels that differ": good.replace(b"BEGIN PUBLIC", b"BEGIN RSA PUBLIC"), "RSA private": private(KEYS.rsa), "EC private": private(KEYS.ec),
        "Ed25519 private": private(KEYS.ed), "RSA private, PKCS#1": private(KEYS.rsa, PrivateFormat.TraditionalOpenSSL), "public and private": good + private(KEYS.rsa),
        "RSA of 1,024 bits": spki(weak_rsa().public_key()), "P-384": spki(KEYS.p384.public_key()), "P-521": spki(ec.generate_private_key(ec.SECP521R1()).public_key()),
        "secp256k1": spki(ec.generate_private_key(ec.SECP256K1()).public_key()), "X25519": spki(x25519.X25519PrivateKey.generate().public_key()),
        "DSA": spki(dsa.generate_private_key(1024).public_key()), "JSON": json.dumps(JWKS["rsa"]).encode(), "a secret": SECRET.encode(),
        "2 MiB": good + b"\n" * 2**21, "P-256, not on the curve": off_curve(),
    }  # fmt: skip
    files |= {f"small order: {name}": pem_of(bytes.fromhex("302a300506032b6570032100") + raw) for name, raw in SMALL_ORDER.items()}
    assert taken(tmp_path, "--jwt-public-key-file", files) == set()


def pem_of(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def off_curve() -> bytes:
    der = bytearray(spki(KEYS.ec.public_key(), Encoding.DER))
    der[-1] ^= 1
    return pem_of(bytes(der))


def test_a_set_without_a_usable_key_is_none(tmp_path):
    files = {name: json.dumps({"keys": [jwk | {"kid": "k"}]}).encode() for name, jwk in bad_jwks().items()}
    whole = json.dumps({"keys": [JWKS["rsa"]]}).encode()
    files |= {
        "empty": b"", "garbage": b"garbage", "an array": json.dumps([JWKS["rsa"]]).encode(), "one key": json.dumps(JWKS["rsa"]).encode(), "no keys": b"{}",
        "none": b'{"keys": []}', "null": b'{"keys": null}', "an object": json.dumps({"keys": {"a": JWKS["rsa"]}}).encode(), "numbers": b'{"keys": [5, null]}',
        "cut": whole[:-1], "PEM": spki(KEYS.rsa.public_key()), "deep": b"[" * 100_000,
    }  # fmt: skip
    assert taken(tmp_path, "--jwt-jwks-file", files) == set()


def test_a_secret_that_is_too_short_is_none(tmp_path):
    files = {repr(content)[:20]: content for content in (b"", b"\n", b"x" * 31, b"x" * 31 + b"\n", b"x" * 31 + b"\r\n", bytes(2**20 + 1))}
    assert taken(tmp_path, "--jwt-secret-file", files) == set()


def test_beside_a_good_key_bad_ones_verify_nothing(start):
    """A key of small order has signatures that everybody can write down."""
    bad = bad_jwks()
    jwks = [JWKS["rsa"] | {"kid": "good"}, *(jwk | {"kid": name} for name, jwk in bad.items())]
    judge = start("--jwt-jwks-file", json.dumps({"keys": jwks}))
    assert judge.code(token({"alg": "RS256", "kid": "good"}, claims(), rs(KEYS.rsa))) == 0
    simple = {"1, 0": b"\1" + bytes(63), "zeros": bytes(64), "of the secret": None}
    small = simple | {f"R {name}": raw + bytes(32) for name, raw in SMALL_ORDER.items()}
    for name in bad:
        is_small = "small order" in name
        for alg in ("EdDSA",) if is_small else ("EdDSA", "HS256", "ES256", "RS256"):
            for how, signature in (small if is_small else simple).items():
                # More than one message: whether such a signature fits depends on its hash.
                for attempt in range(8 if is_small else 1):
                    sign = (lambda _, value=signature: value) if signature else SIGN
                    code = judge.code(token({"alg": alg, "kid": name}, claims(jti=attempt), sign))
                    assert code in (1002, 1003), (name, alg, how, code)
