"""Random changes of what is valid: no 5xx, no panic, an answer in time, and every accepted row becomes active."""

import json
import random as randomly
import time

import pytest
from attack import chance, under_attack
from ca import SHA256, Authority, Certificates, active
from cryptography.hazmat.primitives.asymmetric import ec
from der import Node, ders, pem
from harness import Csrd, codes, subject, wait_until

ROOT = Authority("Root of the fuzzer")
INTERMEDIATE = Authority("Intermediate of the fuzzer", issuer=ROOT)
# Beyond it, an answer would be an attack by itself; what a busy machine takes is far below.
SLOW_SECS = 20.0


@pytest.fixture(scope="module")
def csrd(tmp_path_factory):
    with under_attack(tmp_path_factory.mktemp("fuzz")) as csrd:
        csrd.certificates = Certificates(csrd.zone)
        csrd.csr = active(csrd.zone)
        csrd.chain = INTERMEDIATE.issue(csrd.csr["csr"]) + INTERMEDIATE.pem + ROOT.pem
        yield csrd


def settle(csrd: Csrd) -> None:
    """Every accepted row becomes active."""
    wait_until(lambda: csrd.zone.total(status="pending") == 0, "nothing is pending", 90)
    assert csrd.zone.total(status="failed") == 0


def asked(began: float, answer) -> int:
    assert time.monotonic() - began < SLOW_SECS, answer
    return answer.status


# Bytes

PIECES = [b"\0", b"\xff", b"\x80", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x89" + b"\xff" * 9, b"\x05\x00", b"\x1f\xff\xff\xff\xff\x7f", b"\x30\x00", b"\x02\x00", b"\x02\x01\x80", b"\x06\x00", b"\x06\x01\x80"]


def changed(random: randomly.Random, content: bytes, pieces: list[bytes], most: int = 3) -> bytes:
    """Some bytes flipped, dropped, repeated, replaced or put in, or moved."""
    made = bytearray(content)
    for _ in range(random.randint(1, most)):
        place = random.randrange(len(made) or 1)
        match random.choice(["flip", "drop", "repeat", "insert", "set", "cut", "swap"]):
            case "flip" if made:
                made[place] ^= 1 << random.randrange(8)
            case "drop":
                del made[place : place + random.randint(1, 30)]
            case "repeat":
                made[place:place] = made[place : place + random.randint(1, 60)]
            case "insert":
                made[place:place] = random.choice(pieces)
            case "set":
                piece = random.choice(pieces)
                made[place : place + len(piece)] = piece
            case "cut" if random.random() < 0.2:
                del made[place:]
            case "swap":
                other = random.randrange(len(made) or 1)
                length = random.randint(1, 20)
                made[place : place + length], made[other : other + length] = made[other : other + length], made[place : place + length]
    return bytes(made)


def upload(csrd: Csrd, certificate: str) -> int:
    """All checks, nothing stored."""
    began = time.monotonic()
    params = {"dry_run": "true"}
    answer = csrd.certificates.post(custom_csr_id=csrd.csr["id"], certificate=certificate, params=params)
    assert answer.status in (200, 400), (certificate, answer)
    return asked(began, answer)


def count(record_property, what: str, statuses: list[int]) -> None:
    accepted = sum(status < 300 for status in statuses)
    record_property("figures", f"{what}: {len(statuses)} asked, {accepted} accepted")
    # Changes that are all alike, or none, would test nothing.
    assert 0 < len(statuses) - accepted


def test_a_changed_pem_text_is_accepted_or_refused(csrd, record_property):
    random = chance("pem")
    assert upload(csrd, csrd.chain) == 200
    pieces = [b"-----", b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"\n", b"\r\n", b"\\n", b"=", b"==", b" ", b"\t", b"\0", b"-----BEGIN PRIVATE KEY-----", "ü".encode(), b"\xef\xbb\xbf", b"Proc-Type: 4,ENCRYPTED\n"]
    statuses = []
    for _ in range(300):
        text = changed(random, csrd.chain.encode(), pieces).decode("utf-8", "replace")
        statuses.append(upload(csrd, text))
    count(record_property, "PEM text", statuses)


def test_changed_der_is_accepted_or_refused(csrd, record_property):
    random = chance("der")
    valid, statuses = ders(csrd.chain), []
    for _ in range(400):
        made = list(valid)
        # The leaf more often: it is looked at first.
        place = random.choice([0, 0, 1, 2])
        made[place] = changed(random, made[place], PIECES)
        if random.random() < 0.2:
            random.shuffle(made)
        if made == valid:
            continue
        statuses.append(upload(csrd, pem(*made)))
    count(record_property, "DER bytes", statuses)


TAGS = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31, 0x80, 0x82, 0xA0, 0xA1, 0xA3, 0x24, 0x1F, 0x00]
CONTENTS = [b"", b"\0", b"\xff", b"\x80", b"\0" * 200, b"\xff" * 200, b"99991231235959Z", b"491231235959Z", b"500101000000Z", b"20500101000000+0100", b"00000000000000Z", b"\x55\x1d\x11", b"\x2a" * 300, b"\x88" * 50 + b"\x01", b"\x01\x02\x03"]


def restructured(random: randomly.Random, der: bytes) -> bytes:
    """Another structure that is well-formed as such."""
    (top,) = Node.parse(der)
    restructure(random, der, top)
    return top.encode()


def restructure(random: randomly.Random, der: bytes, top: Node) -> None:
    for _ in range(random.randint(1, 3)):
        node = random.choice(top.all())
        inner = node.content
        match random.choice(["tag", "content", "drop", "repeat", "shuffle", "wrap", "graft", "many"]):
            case "tag":
                node.tag = random.choice(TAGS)
            case "content" if isinstance(inner, bytes):
                node.content = random.choice(CONTENTS)
            case "drop" if isinstance(inner, list) and inner:
                del inner[random.randrange(len(inner))]
            case "repeat" if isinstance(inner, list) and inner:
                inner.insert(random.randrange(len(inner)), random.choice(inner))
            case "shuffle" if isinstance(inner, list):
                random.shuffle(inner)
            case "wrap":
                depth = random.choice([1, 2, 50, 100])
                for _ in range(depth):
                    node.content = [Node(node.tag, node.content)]
                    node.tag = 0x30
            case "graft":
                (other,) = Node.parse(der)
                chosen = random.choice(other.all())
                node.tag, node.content = chosen.tag, chosen.content
            case "many" if isinstance(inner, list) and inner:
                node.content = inner + [random.choice(inner)] * random.choice([10, 100])


def resigned(random: randomly.Random, der: bytes, issuer: Authority) -> bytes:
    """Another structure that its issuer has signed: it gets past the check of the signature."""
    (top,) = Node.parse(der)
    certificate, _, signature = top.content
    restructure(random, der, certificate)
    signature.content = b"\0" + issuer.key.sign(certificate.encode(), ec.ECDSA(SHA256))
    return top.encode()


def test_a_changed_structure_is_accepted_or_refused(csrd, record_property):
    random = chance("structure")
    valid, statuses = ders(csrd.chain), []
    assert [Node.parse(der)[0].encode() for der in valid] == valid, "what is taken apart comes together again"
    for _ in range(400):
        made = list(valid)
        place = random.choice([0, 0, 1, 2])
        made[place] = restructured(random, made[place])
        if made == valid or len(text := pem(*made)) > 60_000:
            continue
        statuses.append(upload(csrd, text))
    count(record_property, "DER structure", statuses)


def test_what_a_changed_certificate_is_accepted_as_can_be_stored_listed_renewed_and_deleted(csrd, record_property):
    """Not a dry run: what the checks let through must not break a list."""
    random = chance("stored")
    valid, stored = ders(csrd.chain), 0
    for _ in range(300):
        made = list(valid)
        place = random.choice([0, 0, 1, 2])
        made[place] = resigned(random, made[place], [INTERMEDIATE, ROOT, ROOT][place])
        if len(text := pem(*made)) > 60_000:
            continue
        answer = csrd.certificates.post(custom_csr_id=csrd.csr["id"], certificate=text)
        assert answer.status in (201, 400, 409), (text, answer)
        if answer.status == 201:
            stored += 1
            assert csrd.certificates.get(answer.result["id"]) == answer.result
            assert answer.result["id"] in {row["id"] for row in csrd.certificates.all()}
            assert csrd.certificates.patch(answer.result["id"], certificate=csrd.chain).status == 200
            assert csrd.certificates.request("DELETE", f"/{answer.result['id']}").status == 200
    record_property("figures", f"signed certificates: 300 asked, {stored} stored")
    assert stored and csrd.certificates.all() == []
    answer = csrd.certificates.post(custom_csr_id=csrd.csr["id"], certificate=csrd.chain)
    assert answer.status == 201 and csrd.certificates.request("DELETE", f"/{answer.result['id']}").status == 200


# JSON

VALUES = [None, True, False, 0, -1, 1.5, 10**30, "", " ", "x", "\0", "\x7f", "\ud83d\udd11", "\u202e", "x" * 300, "\u00fc" * 70, [], [[]], {}, {"a": 1}, ["x"], "*", "*.acme-widgets.com", "localhost", "co.uk", "1.2.3.4", "::1", "-a.b", "a..b", "xn--a.com",
          "rsa2048", "P256V1", "US", "XX", "UK", "a.b.c", "a_b.acme-widgets.com", "\u212a.com", "A" * 63 + ".com", "A" * 64 + ".com"]  # fmt: skip
NAMES = ["country", "state", "locality", "organization", "organizational_unit", "common_name", "sans", "key_type", "name", "description", "id", "x", "", "Country", "__proto__", "key_types", "zone_id"]


def new_body(random: randomly.Random, base: dict) -> dict:
    body = dict(base)
    for _ in range(random.randint(1, 4)):
        name = random.choice(NAMES)
        match random.choice(["value", "drop", "list", "unknown"]):
            case "value":
                body[name] = random.choice(VALUES)
            case "drop":
                body.pop(name, None)
            case "list":
                body["sans"] = [random.choice(VALUES) for _ in range(random.choice([1, 2, 5, 100, 101]))]
            case "unknown":
                body[f"x{random.randrange(10)}"] = random.choice(VALUES)
    return body


def encoded(random: randomly.Random, body: dict) -> bytes:
    """As JSON, and now and then with changed bytes."""
    text = json.dumps(body, ensure_ascii=random.random() < 0.7).encode("utf-8", "surrogatepass")
    pieces = [b'"', b"\\", b"{", b"}", b"[", b"]", b"\0", b"\xff", b"\\u0000", b"\\ud83d", b"null", b",", b":", b"1e999", b"\xef\xbb\xbf", b"//", b"\\u0073tate"]
    return changed(random, text, pieces) if random.random() < 0.4 else text


def test_a_changed_body_is_accepted_or_refused_and_what_is_accepted_becomes_active(csrd, record_property):
    random = chance("bodies")
    statuses = []
    for _ in range(500):
        began = time.monotonic()
        content = encoded(random, new_body(random, subject(name="n", description="d")))
        headers = {"Content-Type": "application/json"}
        if random.random() < 0.2:
            headers["Idempotency-Key"] = random.choice(["a", "b", "x" * 255, "x" * 256, "!"])
        answer = csrd.zone.request("POST", content=content, headers=headers)
        assert answer.status in (201, 400, 409, 413, 422), (content, answer)
        statuses.append(asked(began, answer))
    count(record_property, "POST bodies", statuses)
    assert 201 in statuses
    settle(csrd)


def test_a_changed_patch_or_rekey_is_accepted_or_refused_and_costs_no_key(csrd, record_property):
    random = chance("patches")
    csr = active(csrd.zone, name="before")
    statuses, words = [], ["name", "description", "key_type", "country", "sans", "csr", "status", "x"]
    for number in range(300):
        began = time.monotonic()
        body = {random.choice(words): random.choice(VALUES) for _ in range(random.randint(0, 4))}
        path, method = (f"/{csr['id']}", "PATCH") if number % 5 else (f"/{csr['id']}/rekey", "POST")
        answer = csrd.zone.request(method, path, content=encoded(random, body), headers={"Content-Type": "application/json"})
        assert answer.status in (200, 201, 400), (body, answer)
        statuses.append(asked(began, answer))
    count(record_property, "PATCH and rekey bodies", statuses)
    after = csrd.zone.get(csr["id"])
    variable = {"name": None, "description": None, "updated_at": None}
    assert after | variable == csr | variable
    settle(csrd)


def test_a_changed_upload_is_accepted_or_refused(csrd, record_property):
    random = chance("uploads")
    statuses, words = [], ["certificate", "custom_csr_id", "bundle_method", "type", "priority", "private_key", "deploy", "geo_restrictions", "policy", "x"]
    values = [*VALUES, csrd.chain, csrd.csr["id"], csrd.csr["id"].upper(), "force", "OPTIMAL", "sni_custom", 65535, 65536, -0.0, 20]
    for _ in range(300):
        began = time.monotonic()
        body = {"certificate": csrd.chain, "custom_csr_id": csrd.csr["id"]} | {random.choice(words): random.choice(values) for _ in range(random.randint(0, 3))}
        answer = csrd.certificates.request("POST", content=encoded(random, body), headers={"Content-Type": "application/json"}, params={"dry_run": "true"})
        assert answer.status in (200, 400, 404, 409), (body, answer)
        statuses.append(asked(began, answer))
    count(record_property, "upload bodies", statuses)
    assert 200 in statuses


# Queries

PARAMETERS = ["page", "per_page", "order", "direction", "status", "key_type", "search", "custom_csr_id", "host", "expires_before", "dry_run", "match", "x", "", "set_id"]
TEXTS = ["", "0", "1", "5", "50", "51", "-1", "1.0", "1e9", "99999999999999999999", "x", "name", "created_at", "asc", "DESC", "active", "failed", "rsa2048", "%", "_", "\\", "'", '"', "\0", "\u00fc", "\U0001f511", "true", "a b", "+", "&", "=", "#", "x" * 256, "2030-01-01T00:00:00Z",
         "9999-12-31T23:59:59.999999Z", "0000-01-01", "*", "null", "[]"]  # fmt: skip


def test_a_changed_query_is_answered_or_1464(csrd, record_property):
    random = chance("queries")
    statuses = []
    for _ in range(400):
        began = time.monotonic()
        query = [(random.choice(PARAMETERS), random.choice(TEXTS)) for _ in range(random.randint(1, 4))]
        of = random.choice([csrd.zone, csrd.certificates])
        answer = of.request("GET", params=query)
        assert answer.status == 200 or set(codes(answer.envelope)) == {1464}, (query, answer)
        statuses.append(asked(began, answer))
    count(record_property, "queries", statuses)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_thousands_more_changed_certificates_are_accepted_or_refused(csrd, seed):
    random = chance(f"more {seed}")
    valid = ders(csrd.chain)
    for _ in range(2500):
        made = list(valid)
        place = random.choice([0, 0, 1, 2])
        match random.choice(["bytes", "structure", "signed"]):
            case "bytes":
                made[place] = changed(random, made[place], PIECES)
            case "structure":
                made[place] = restructured(random, made[place])
            case "signed":
                made[place] = resigned(random, made[place], [INTERMEDIATE, ROOT, ROOT][place])
        if len(text := pem(*made)) < 60_000:
            upload(csrd, text)
