"""Uploads made to be expensive: each is answered within a bound, and so are others meanwhile."""

import datetime
import json
import statistics
import threading
import time

import pytest
from attack import chance, check_unharmed, cpu_secs
from ca import DAY, SHA256, Authority, Certificates, active, now
from ca import pem as pem_of
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from der import Node, ders, pem
from harness import Answer, Csrd, codes

LIMIT = 60_000
# Of processor time, for the cheapest of a few equal uploads: a build without optimization on a busy machine stays below it by far.
CPU_SECS = 1.0
NOBODY = x509.Name([])
SAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the same")])
LEAF = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.acme-widgets.com")])
SHA256_WITH_RSA = Node.parse(bytes.fromhex("300d06092a864886f70d01010b0500"))[0]


def certify(subject, public_key, issuer, key, *, ca: bool = True, sans: list | None = None) -> x509.Certificate:
    """A certificate as small as it may be."""
    moment = now().replace(microsecond=0)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(moment - DAY).not_valid_after(moment + 90 * DAY)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in sans]), critical=False)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


class Target:
    """A service, and a custom CSR for which certificates are uploaded."""

    def __init__(self, csrd: Csrd):
        self.csrd, self.zone = csrd, csrd.tenant()
        self.certificates, self.csr = Certificates(self.zone), active(self.zone)
        self.key = x509.load_pem_x509_csr(self.csr["csr"].encode()).public_key()

    def leaf(self, issuer=NOBODY, key=None, **options) -> x509.Certificate:
        return certify(LEAF, self.key, issuer, key or ec.generate_private_key(ec.SECP256R1()), ca=False, **({"sans": self.csr["sans"]} | options))

    def upload(self, text: str, *, times: int = 3) -> Answer:
        """An answer within the bound; nothing is stored."""
        assert len(json.dumps(text)) < 65_000, "it is too large to get anywhere"
        costs = []
        for _ in range(times):
            used = cpu_secs(self.csrd)
            answer = self.certificates.post(custom_csr_id=self.csr["id"], certificate=text, params={"dry_run": "true"})
            assert answer.status in (200, 400), answer
            costs.append(cpu_secs(self.csrd) - used)
        # Whatever else the process or the machine does meanwhile, it does not do each time.
        assert min(costs) < CPU_SECS, f"{costs} s of processor time"
        return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    csrd = Csrd(tmp_path_factory.mktemp("uploads"), "--key-pool-size", "0").start()
    try:
        yield Target(csrd)
        check_unharmed(csrd)
    finally:
        csrd.close()


@pytest.fixture(autouse=True)
def nothing_is_stored(target):
    yield
    assert target.certificates.all() == []


def many_authorities(target: Target, new_key, most: int) -> str:
    """A leaf and as many authorities without a name as there is room for: each name fits each other, and so may each signature."""
    keys = [new_key() for _ in range(4)]
    made = [der(target.leaf(NOBODY, keys[0]))]
    while len(made) <= most:
        key, signer = keys[len(made) % 4], keys[(len(made) + 1) % 4]
        made.append(der(certify(NOBODY, key.public_key(), NOBODY, signer)))
        if len(pem(*made)) > LIMIT:
            made.pop()
            break
    assert len(made) > 60
    return pem(*made)


@pytest.mark.parametrize("kind", ["Ed25519", "P-256", "P-384", "P-521"])
def test_a_chain_of_more_than_ten_certificates_is_1426_at_once(target, kind):
    new_key = {
        "Ed25519": ed25519.Ed25519PrivateKey.generate, "P-256": lambda: ec.generate_private_key(ec.SECP256R1()), "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    }[kind]  # fmt: skip
    assert codes(target.upload(many_authorities(target, new_key, 150)).envelope) == [1426]


def test_repeats_are_one_certificate_however_many(target):
    authority = Authority("Root of the repeats")
    leaf = authority.issue(target.csr["csr"])
    times = LIMIT // len(leaf + authority.pem)
    for text in (leaf + authority.pem * times, leaf * times + authority.pem, (leaf + authority.pem) * times):
        assert target.upload(text).status in (200, 400)


def test_blocks_without_anything_in_them_are_1426(target):
    begin, end = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"
    texts = {
        "empty blocks": (begin + end) * 1000, "only beginnings": begin * 2100, "beginnings without labels": "-----BEGIN " * 4500, "only ends": end * 2300, "dashes": "-" * LIMIT,
        "newlines": begin + "\n" * (LIMIT // 2) + end, "spaces": begin + " " * LIMIT + end, "one line": begin + "A" * LIMIT + end, "one character a line": begin + "A\n" * (LIMIT // 3) + end,
        "escaped newlines": begin.replace("\n", "\\n") + "A\\n" * 15_000 + end, "nested": begin * 1000 + end * 1000, "other labels": "-----BEGIN X-----\nAAAA\n-----END X-----\n" * 1300, "text": "x" * LIMIT,
        "headers": begin + "A: b\n" * 9_000 + end, "equals": begin + "=" * LIMIT + end,
    }  # fmt: skip
    assert {name: found for name, text in texts.items() if (found := codes(target.upload(text, times=1).envelope)) != [1426]} == {}


def test_a_deep_or_long_der_is_1426(target):
    deep = b"\x05\x00"
    for _ in range(9000):
        size = len(deep)
        deep = b"\x30" + (bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")) + deep
        if len(deep) > 40_000:
            break
    values = {
        "deep": deep, "no end": b"\x30\x80" * 20_000, "endless": b"\x30\x80" + b"\x05\x00" * 20_000, "a length of 2^63": b"\x30\x88\x7f" + b"\xff" * 7 + b"x", "many": Node(0x30, b"\x05\x00" * 20_000).encode(),
        "integers": Node(0x30, b"\x02\x01\x00" * 13_000).encode(), "a long integer": Node(0x30, Node(0x02, b"\x7f" * 40_000).encode()).encode(), "zeros": bytes(40_000),
        "a long tag": b"\x3f" + b"\xff" * 40_000, "a long OID": Node(0x30, Node(0x06, b"\xff" * 40_000).encode()).encode(),
    }  # fmt: skip
    assert {name: found for name, value in values.items() if (found := codes(target.upload(pem(value), times=1).envelope)) != [1426]} == {}


def huge_rsa(bits: int, exponent_bits: int) -> rsa.RSAPublicKey:
    """A public key as nobody would make one: its modulus need be nobody's for a signature to be looked at."""
    random = chance(f"RSA {bits} {exponent_bits}")
    n = random.getrandbits(bits) | 1 << (bits - 1) | 1
    e = 65537 if exponent_bits == 17 else random.getrandbits(exponent_bits) | 1 << (exponent_bits - 1) | 1
    return rsa.RSAPublicNumbers(e, n).public_key()


@pytest.mark.parametrize(("bits", "exponent_bits"), [(8192, 17), (16_384, 17), (16_000, 33), (8192, 64), (4096, 4090), (16_384, 15_991), (16_384, 16_383), (2048, 2047)])
def test_a_huge_rsa_key_of_an_issuer_costs_no_more_than_another(target, bits, exponent_bits):
    try:
        public_key = huge_rsa(bits, exponent_bits)
    except ValueError:
        # The library makes no key of that kind: by hand, then.
        public_key = rsa.generate_private_key(65537, 2048).public_key()
    signer = ec.generate_private_key(ec.SECP256R1())
    authorities = []
    for number in range(6):
        (top,) = Node.parse(der(certify(SAME, public_key, SAME, signer)))
        key_info = next(node for node in top.content[0].content if isinstance(node.content, list) and len(node.content) == 2 and node.content[1].tag == 0x03)
        random = chance(f"RSA {bits} {exponent_bits} {number}")
        n = (random.getrandbits(bits) | 1 << (bits - 1) | 1).to_bytes(bits // 8, "big")
        e = (65537 if exponent_bits == 17 else random.getrandbits(exponent_bits) | 1 << (exponent_bits - 1) | 1).to_bytes((exponent_bits + 7) // 8 if exponent_bits > 17 else 3, "big")
        numbers = Node(0x30, [Node(0x02, b"\0" + n), Node(0x02, b"\0" + e if e[0] & 0x80 else e)])
        key_info.content[1].content = b"\0" + numbers.encode()
        authorities.append(top.encode())
    (leaf,) = Node.parse(der(target.leaf(SAME)))
    certificate, algorithm, signature = leaf.content
    certificate.content[2].content = algorithm.content = SHA256_WITH_RSA.content
    signature.content = b"\0\1" + b"\x55" * (bits // 8 - 1)
    text = pem(leaf.encode(), *authorities)
    while len(text) > LIMIT:
        authorities.pop()
        text = pem(leaf.encode(), *authorities)
    assert authorities
    answer = target.upload(text)
    assert answer.status == 400 or answer.envelope["messages"], answer


def test_a_leaf_with_1500_names_is_accepted_or_refused_within_the_bound(target):
    issuer = ec.generate_private_key(ec.SECP256R1())
    for number in (100, 1500, 3000):
        text = pem_of(target.leaf(SAME, issuer, sans=[f"{n:x}.a.b" for n in range(number)]))
        answer = target.upload(text)
        if answer.status == 200:
            assert len(answer.result["hosts"]) == number
            # Names that differ are listed in a warning too.
            assert len(answer.content) < 10 * LIMIT, number


def test_authorities_that_certify_each_other_make_no_endless_path(target):
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"loop {n}")]) for n in range(3)]
    loop = [certify(names[n], keys[n].public_key(), names[(n + 1) % 3], keys[(n + 1) % 3]) for n in range(3)]
    both = [certify(names[n], keys[n].public_key(), names[m], keys[m]) for n in range(3) for m in range(3)]
    leaf = target.leaf(names[0], keys[0])
    for authorities in (loop, loop[::-1], both, both[::-1]):
        assert target.upload(pem(der(leaf), *map(der, authorities))).status in (200, 400)


@pytest.fixture(scope="module")
def anchored(tmp_path_factory):
    """A service with 125 trust anchors that all have one name."""
    directory = tmp_path_factory.mktemp("anchors")
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(125)]
    anchors = [certify(SAME, key.public_key(), SAME, key) for key in keys]
    path = directory / "anchors.pem"
    path.write_text("".join(map(pem_of, anchors)))
    csrd = Csrd(directory / "csrd", "--trust-anchors", str(path), "--key-pool-size", "0").start()
    target = Target(csrd)
    target.anchor_keys = keys
    try:
        yield target
        check_unharmed(csrd)
    finally:
        csrd.close()


def test_authorities_of_one_name_are_told_apart_within_the_bound(anchored):
    good = anchored.anchor_keys[50]
    assert anchored.upload(pem_of(anchored.leaf(SAME, good))).status == 200
    # The bound may be reached before the last is tried.
    assert codes(anchored.upload(pem_of(anchored.leaf(SAME, anchored.anchor_keys[-1]))).envelope) in ([], [1479])
    # Nobody's: every anchor is tried in vain, at every step.
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert codes(anchored.upload(pem_of(anchored.leaf(SAME, stranger))).envelope) in ([1479], [1477])
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(9)]
    for issuer_of_last in (stranger, good):
        chain = [anchored.leaf(SAME, keys[0])]
        chain += [certify(SAME, key.public_key(), SAME, issuer) for key, issuer in zip(keys, [*keys[1:], issuer_of_last], strict=True)]
        for made in (chain, [chain[0], *chain[:0:-1]]):
            assert anchored.upload(pem(*map(der, made))).status in (200, 400)
        # Each certified by each.
        web = [certify(SAME, key.public_key(), SAME, issuer) for key in keys[:3] for issuer in (*keys[:2], issuer_of_last)]
        assert anchored.upload(pem(der(chain[0]), *map(der, web))).status in (200, 400)


def test_others_are_served_while_expensive_uploads_come(target):
    """Each on a connection of its own, for some seconds."""
    text = many_authorities(target, lambda: ec.generate_private_key(ec.SECP521R1()), 150)
    over, uploads, took = threading.Event(), [], []

    def attack() -> None:
        client = Csrd(target.csrd.directory.with_name("another client"))
        client.address = target.csrd.address
        while not over.is_set():
            uploads.append(client.request("POST", target.certificates.path, token=target.zone.token, json={"custom_csr_id": target.csr["id"], "certificate": text}, params={"dry_run": "true"}).status)
        client.close()

    threads = [threading.Thread(target=attack) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            assert target.csrd.is_up()
            took.append(time.monotonic() - began)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(uploads) > 8 and set(uploads) <= {200, 400}
    assert statistics.median(took) < 3, f"median {statistics.median(took):.3f} s of {len(took)}"


def test_a_year_that_no_calendar_has_is_refused_or_shown(target):
    """Times at both ends of what X.509 can say."""
    issuer = ec.generate_private_key(ec.SECP256R1())
    for text in (b"00000101000000Z", b"99991231235959Z", b"99999999999999Z", b"20260230000000Z", b"20261301000000Z", b"20260101240000Z", b"20260101006000Z", b"20260101000060Z", b"19500101000000Z", b"-0010101000000Z", b"2026010100Z", b""):
        for place in (0, 1):
            (leaf,) = Node.parse(der(target.leaf(SAME, issuer)))
            certificate, _, signature = leaf.content
            certificate.content[4].content[place] = Node(0x18, text)
            signature.content = b"\0" + issuer.sign(certificate.encode(), ec.ECDSA(SHA256))
            answer = target.upload(pem(leaf.encode()), times=1)
            if answer.status == 200:
                assert datetime.datetime.fromisoformat(answer.result["expires_on"]).year == 9999 or place == 0
            else:
                assert codes(answer.envelope)[0] in (1426, 1475), (text, answer)


def test_what_is_taken_apart_here_comes_together_again(target):
    """Else these uploads would be broken in another way than they say."""
    chain = pem_of(target.leaf(SAME))
    assert pem(*[Node.parse(value)[0].encode() for value in ders(chain)]) == pem(*ders(chain))
