"""What an upload of a certificate is refused for, each with material made by openssl, and what it is warned of."""

import base64
import ipaddress
import sqlite3
from contextlib import closing

import mint
import pytest
from ca import DAY, SECOND, Authority, Certificates, active, new_csr, small_rsa_key, warnings
from chain_cases import SERIALS, Workshop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from databases import FAIL
from harness import codes, faults, refused
from test_secrets import PRIVATE_KEY_MARKS, database_files, find_secrets

UNKNOWN_CSR = "01890a5d-ac96-774b-bcce-b302099a8057"
UNKNOWN = "0" * 32
STATUS = {
    1400: 400, 1473: 400, 1472: 400, 1430: 400, 1431: 404, 1427: 400, 1426: 400, 1474: 409, 1476: 400, 1445: 400, 1444: 400, 1429: 400,
    1447: 400, 1478: 400, 1475: 400, 1477: 400, 1479: 400, 1480: 400, 1481: 404,
}  # fmt: skip


class Material:
    """A chain of RSA keys, which can be signed with MD5 too, and a custom CSR of each kind."""

    def __init__(self, zone):
        self.zone, self.certificates = zone, Certificates(zone)
        self.root = Authority(key=rsa.generate_private_key(65537, 2048))
        self.intermediate = Authority("Intermediate of a test", issuer=self.root, key=rsa.generate_private_key(65537, 2048))
        self.stranger = Authority("Somebody else's root")
        self.weak = Authority("Root with a small key", key=small_rsa_key())
        made = active(zone)
        self.id, self.csr = made["id"], made["csr"]

    def refused(self, code: int, body: dict, send=None) -> dict:
        """The only error is `code`, its message says something, and nothing was stored."""
        before = self.certificates.all()
        answer = (send or self.certificates.post)(**body)
        assert (codes(answer.envelope), answer.status) == ([code], STATUS[code]), answer
        assert answer.headers.get("x-should-retry") == ("false" if answer.status == 409 else None), answer.headers
        assert len(answer.envelope["errors"][0]["message"]) > 20
        assert self.certificates.all() == before
        return answer.envelope["errors"][0]


@pytest.fixture(scope="module")
def material(service) -> Material:
    return Material(service.tenant())


@pytest.fixture
def certificates(zone) -> Certificates:
    return Certificates(zone)


def broken(text: str) -> str:
    """A PEM whose base64 is none."""
    return text.replace("\nMI", "\n*I", 1)


def with_trailing_byte(text: str) -> str:
    der = base64.b64decode("".join(text.splitlines()[1:-1])) + b"\0"
    return f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


# Each entry: the code, and the certificates that get it. Those that have several faults show the order.
CERTIFICATES = {
    "our key as a CA": (1476, lambda m, issue: issue(m.csr, ca=True) + m.intermediate.pem),
    "our key as a CA, a leaf for another key": (1476, lambda m, issue: issue(m.csr, ca=True) + issue(new_csr())),
    "our key as a CA, with MD5, two leaves": (1476, lambda m, issue: issue(m.csr, ca=True, digest="md5") + issue(new_csr()) + issue(new_csr("b.org"))),
    "CAs only": (1445, lambda m, issue: m.intermediate.pem + m.root.pem),
    "CAs only, one with a small key": (1445, lambda m, issue: m.weak.pem),
    "two leaves": (1444, lambda m, issue: issue(m.csr) + issue(new_csr())),
    "two leaves for one key": (1444, lambda m, issue: issue(m.csr) + issue(m.csr)),
    "two leaves, neither is ours, with SHA-1": (1444, lambda m, issue: issue(new_csr(), digest="sha1") + issue(new_csr("b.org"))),
    "another key": (1429, lambda m, issue: issue(new_csr()) + m.intermediate.pem),
    "another key, with SHA-1": (1429, lambda m, issue: issue(new_csr(), digest="sha1")),
    "another key, a small key in the chain": (1429, lambda m, issue: m.weak.issue_by_openssl(new_csr()) + m.weak.pem),
    "another key, expired": (1429, lambda m, issue: issue(new_csr(), begins=-2 * DAY, ends=-DAY)),
    "SHA-1": (1447, lambda m, issue: issue(m.csr, digest="sha1") + m.intermediate.pem),
    "MD5": (1447, lambda m, issue: issue(m.csr, digest="md5") + m.intermediate.pem),
    "SHA-1 with ECDSA": (1447, lambda m, issue: m.stranger.issue_by_openssl(m.csr, digest="sha1")),
    "SHA-1, a small key": (1447, lambda m, issue: m.weak.issue_by_openssl(m.csr, digest="sha1") + m.weak.pem),
    "SHA-1, expired": (1447, lambda m, issue: issue(m.csr, digest="sha1", begins=-2 * DAY, ends=-DAY)),
    "a small key": (1478, lambda m, issue: m.weak.issue_by_openssl(m.csr) + m.weak.pem),
    "a small key, expired": (1478, lambda m, issue: m.weak.issue_by_openssl(m.csr, begins=-2 * DAY, ends=-DAY) + m.weak.pem),
    "expired": (1475, lambda m, issue: issue(m.csr, begins=-2 * DAY, ends=-DAY) + m.intermediate.pem),
    "not yet valid": (1475, lambda m, issue: issue(m.csr, begins=DAY) + m.intermediate.pem),
    "expired, another chain": (1475, lambda m, issue: issue(m.csr, begins=-2 * DAY, ends=-DAY) + m.stranger.pem),
    "not yet valid, another chain": (1475, lambda m, issue: issue(m.csr, begins=DAY) + m.stranger.pem),
    "an issuer of the same name with another key": (
        1477, lambda m, issue: issue(m.csr) + Authority("Intermediate of a test", key=rsa.generate_private_key(65537, 2048)).pem
    ),
    "nothing in PEM": (1426, lambda m, issue: "certificate"),
    "a CSR": (1426, lambda m, issue: m.csr),
    "a certificate and a CSR": (1426, lambda m, issue: issue(m.csr) + m.csr),
    "broken base64": (1426, lambda m, issue: broken(issue(m.csr))),
    "a leaf and a broken intermediate": (1426, lambda m, issue: issue(m.csr) + broken(m.intermediate.pem)),
    "cut off": (1426, lambda m, issue: issue(m.csr)[:-30]),
    "cut off in the intermediate": (1426, lambda m, issue: (issue(m.csr) + m.intermediate.pem)[:-30]),
    "a byte too many": (1426, lambda m, issue: with_trailing_byte(issue(m.csr))),
    "no certificate in it": (1426, lambda m, issue: "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
    "an empty block": (1426, lambda m, issue: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
    "empty": (1427, lambda m, issue: ""),
    "blank": (1427, lambda m, issue: " \r\n\t"),
}  # fmt: skip


@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize("method", ["upload", "replacement", "dry run"])
def test_a_certificate_is_refused_for_its_first_fault_alone(material, name, method):
    code, make = CERTIFICATES[name]
    body = {"certificate": make(material, material.intermediate.issue_by_openssl)}
    if method == "replacement":
        if not hasattr(material, "replaced"):
            material.replaced = material.certificates.upload(material.id, material.root.issue(material.csr))["id"]
        error = material.refused(code, body, lambda **members: material.certificates.patch(material.replaced, **members))
    else:
        body |= {"custom_csr_id": material.id, "params": {"dry_run": "true"} if method == "dry run" else None}
        error = material.refused(code, body)
    assert error.get("source", {}).get("pointer") in (None, "/certificate")


def test_an_upload_has_at_most_ten_certificates_where_one_that_repeats_counts_once(material, zone):
    csr, certificates = active(zone), Certificates(zone)
    path = [material.root]
    for n in range(9):
        path.append(Authority(f"Intermediate {n}", issuer=path[-1]))
    nine = path[-1].chain
    assert nine.count("BEGIN") == 9
    body = {"custom_csr_id": csr["id"], "params": {"dry_run": "true"}}
    leaf = path[-1].issue(csr["csr"])
    assert certificates.post(certificate=leaf + nine, **body).status == 200
    shorter = path[-2].issue(csr["csr"]) + path[-2].chain
    assert certificates.post(certificate=shorter + material.root.pem * 12, **body).status == 200
    # A fault of what is too long is not looked for: nobody verifies it.
    for long in (leaf + nine + material.root.pem, leaf + nine + material.root.pem * 3, leaf + nine + leaf + material.stranger.pem):
        answer = certificates.post(certificate=long, **body)
        (error,) = answer.envelope["errors"]
        assert (error["code"], error["source"]) == (1426, {"pointer": "/certificate"})
        assert "11 certificates" in error["message"] and "at most 10" in error["message"]
    for repeated in (leaf * 12, leaf + path[-1].pem * 12, leaf + nine + path[-1].pem):
        answer = certificates.post(certificate=repeated, **body)
        assert answer.status == 200 and 2008 in {code for code, _ in warnings(answer)}
        assert codes(certificates.post(certificate=repeated, bundle_method="force", **body).envelope) == [1477]


def test_a_ca_certificate_for_the_key_of_a_custom_csr_is_refused_as_one_without_its_id_too(material):
    issue = material.intermediate.issue_by_openssl
    for certificate in (issue(material.csr, ca=True), material.intermediate.pem + issue(material.csr, ca=True)):
        material.refused(1476, {"certificate": certificate})
    for certificate in (issue(new_csr(), ca=True), material.intermediate.pem, issue(new_csr()), issue(material.csr, ca=True) + issue(new_csr())):
        material.refused(1472, {"certificate": certificate})


def fail(csrd, csr_id: str) -> None:
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db", timeout=15)) as database, database:
        assert database.execute(FAIL.format(csr_id)).rowcount == 1


def test_a_body_is_refused_for_its_first_fault_alone(new_csrd):
    """One that has all faults, repaired one by one."""
    csrd = new_csrd("--workers", "0").start()
    material = Material.__new__(Material)
    material.zone = csrd.tenant()
    material.certificates = Certificates(material.zone)
    pending = material.zone.create()["id"]
    account = csrd.tenant("account").create()["id"]
    leaf = Authority().issue_by_openssl(new_csr(), begins=-2 * DAY, ends=-DAY, digest="sha1", ca=True)
    body = {"private_key": "anything", "certificate": ""}
    for key in ("anything", 5, ["x"], {"x": 1}, True):
        material.refused(1473, body | {"private_key": key})
    for changes, code in (
        ({"private_key": None}, 1427), ({"custom_csr_id": None}, 1427), ({"certificate": " "}, 1427), ({"certificate": "x"}, 1426),
        ({"custom_csr_id": "  ", "certificate": leaf}, 1472), ({"private_key": " \n"}, 1472), ({"certificate": ""}, 1427),
        ({"custom_csr_id": "no UUID"}, 1430), ({"custom_csr_id": UNKNOWN}, 1430), ({"custom_csr_id": pending + "0"}, 1430),
        ({"custom_csr_id": UNKNOWN_CSR}, 1431), ({"custom_csr_id": account}, 1431),
        ({"custom_csr_id": pending}, 1427), ({"certificate": None}, 1427), ({"certificate": "garbage"}, 1426), ({"certificate": leaf}, 1474),
    ):  # fmt: skip
        body |= changes
        material.refused(code, body)
        material.refused(code, body | {"params": {"dry_run": "true"}})
    fail(csrd, pending)
    assert material.zone.get(pending)["status"] == "failed"
    material.refused(1474, body)


def test_a_replacement_is_refused_for_its_first_fault_alone(material, zone):
    other, leaf = active(zone), material.root.issue(material.csr)
    made = material.certificates.upload(material.id, leaf)["id"]

    def check(code, **body):
        material.refused(code, body, lambda **members: material.certificates.patch(made, **members))

    check(1473, private_key="x", custom_csr_id="x", certificate="")
    check(1430, custom_csr_id="x", certificate="")
    check(1431, custom_csr_id=UNKNOWN_CSR, certificate="")
    check(1431, custom_csr_id=other["id"], certificate="garbage")
    check(1427, certificate="")
    check(1427, custom_csr_id=active(material.zone)["id"])
    check(1429, custom_csr_id=active(material.zone)["id"], certificate=leaf)
    fail(material.zone.service, failed := active(material.zone)["id"])
    check(1474, custom_csr_id=failed, certificate=leaf)
    for suffix, code in (("x", 1480), (UNKNOWN[:-1], 1480), (UNKNOWN + "0", 1480), ("g" * 32, 1480), (UNKNOWN_CSR, 1480), (UNKNOWN, 1481), ("%ff", 1480)):
        for method in ("GET", "PATCH", "DELETE"):
            # The ID comes before the body.
            answer = material.certificates.request(method, f"/{suffix}", json={"private_key": "x"} if method == "PATCH" else None)
            assert (codes(answer.envelope), answer.status) == ([code], STATUS[code]), (suffix, method)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"", [None]), (b"[]", [None]), (b"nonsense", [None]), (b'{"private_key":"x","private_key":"x"}', [None]), (b'{"a":{"b":1,"b":2}}', [None]),
        (b'{"certificate":5}', ["/certificate"]), (b'{"custom_csr_id":[]}', ["/custom_csr_id"]), (b'{"type":"own"}', ["/type"]),
        (b'{"bundle_method":"best"}', ["/bundle_method"]), (b'{"priority":-1}', ["/priority"]), (b'{"priority":"5"}', ["/priority"]),
        (b'{"type":1,"custom_csr_id":2,"private_key":3}', ["/type", "/custom_csr_id"]),
    ],
)  # fmt: skip
def test_a_body_of_the_wrong_shape_is_1400_before_all_else(certificates, body, pointers):
    answer = certificates.request("POST", content=body, headers={"Content-Type": "application/json"})
    assert faults(answer.envelope) == [(1400, pointer) for pointer in pointers] and answer.status == 400


def test_a_private_key_that_was_sent_is_in_no_log_answer_or_table(new_csrd):
    csrd = new_csrd("--log-level", "trace").start()
    zone = csrd.tenant()
    certificates, csr = Certificates(zone), active(zone)
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secret = {"it": key.private_numbers().private_value.to_bytes(32), "its line": text.splitlines()[1].encode()}
    leaf = Authority().issue(csr["csr"])
    answers = [certificates.post(private_key=text, custom_csr_id=csr["id"], certificate=leaf)]
    # The files of some servers hold both.
    answers.append(certificates.post(custom_csr_id=csr["id"], certificate=leaf + text))
    answers.append(certificates.post(custom_csr_id=csr["id"], certificate=text + leaf))
    assert [codes(answer.envelope) for answer in answers] == [[1473], [1473], [1473]]
    assert [answer.envelope["errors"][0]["source"]["pointer"] for answer in answers] == ["/private_key", "/certificate", "/certificate"]
    assert all("exposed" in answer.envelope["errors"][0]["message"] for answer in answers)
    assert csrd.stop() == 0
    said = b"".join(answer.content for answer in answers) + csrd.log_path.read_bytes() + b"".join(database_files(csrd.data_dir).values())
    assert find_secrets(said, secret | PRIVATE_KEY_MARKS) == []


def test_a_path_to_a_trust_anchor_is_asked_for_where_anchors_are_set(new_csrd, tmp_path):
    root = Authority()
    intermediate = Authority("Intermediate", issuer=root)
    (tmp_path / "roots.pem").write_text(Authority("Another root").pem + root.pem)
    zone = new_csrd("--trust-anchors", str(tmp_path / "roots.pem")).start().tenant()
    certificates, csr = Certificates(zone), active(zone)
    stranger, leaf = Authority("Root of a test"), intermediate.issue(csr["csr"])
    for code, chain in (
        (1479, leaf + stranger.pem),
        (1479, leaf),
        (1479, stranger.issue(csr["csr"])),
        (1479, stranger.issue(csr["csr"]) + stranger.pem),
    ):
        assert codes(certificates.post(custom_csr_id=csr["id"], certificate=chain).envelope) == [code]
    for chain in (leaf + intermediate.pem, intermediate.issue(csr["csr"]) + intermediate.pem + root.pem, root.issue(csr["csr"])):
        answer = certificates.post(custom_csr_id=csr["id"], certificate=chain)
        assert answer.status == 201 and answer.envelope["messages"] == []
    made = certificates.all()[0]["id"]
    assert codes(certificates.patch(made, certificate=leaf).envelope) == [1479]


def test_a_root_that_was_sent_is_kept_out_of_the_chain_where_it_is_a_trust_anchor_too(new_csrd, tmp_path):
    root = mint.CA("Root that is sent")
    sent, of_another_version = root.root(), root.root(serial=5)
    (tmp_path / "roots.pem").write_text(mint.pem(sent))
    zone = new_csrd("--trust-anchors", str(tmp_path / "roots.pem")).start().tenant()
    csr = active(zone)
    workshop, intermediate = Workshop(csr["csr"]), mint.CA("Intermediate below it")
    for at_the_end in (sent, of_another_version):
        for path in ([workshop.leaf(intermediate), root.authority(intermediate)], [workshop.leaf(root)]):
            answer = Certificates(zone).post(custom_csr_id=csr["id"], certificate=mint.pem(*path, at_the_end))
            assert answer.status == 201 and answer.envelope["messages"] == [], answer
            assert answer.result["chain"] == mint.pem(*path)


def test_of_several_trust_anchors_for_one_ca_any_may_end_the_path(new_csrd, tmp_path):
    root, intermediate = mint.CA("Root that was renewed"), mint.CA("Intermediate below it")
    for_leaves_alone, without_bound = root.root(path_length=0), root.root(serial=5)
    for number, anchors in enumerate(([for_leaves_alone, without_bound], [without_bound, for_leaves_alone])):
        (tmp_path / f"{number}.pem").write_text(mint.pem(*anchors))
        zone = new_csrd("--trust-anchors", str(tmp_path / f"{number}.pem"), name=f"csrd{number}").start().tenant()
        csr = active(zone)
        chain = mint.pem(Workshop(csr["csr"]).leaf(intermediate), root.authority(intermediate))
        for method in ("ubiquitous", "force"):
            answer = Certificates(zone).post(custom_csr_id=csr["id"], certificate=chain, bundle_method=method, params={"dry_run": "true"})
            assert answer.status == 200 and answer.envelope["messages"] == [], answer


def test_a_path_that_goes_on_beyond_a_trust_anchor_is_judged_with_the_trust_anchor(new_csrd, tmp_path):
    root, intermediate, other = mint.CA("Root for leaves alone"), mint.CA("Intermediate below it"), mint.CA("Root that signed it")
    (tmp_path / "roots.pem").write_text(mint.pem(root.root(path_length=0)))
    zone = new_csrd("--trust-anchors", str(tmp_path / "roots.pem")).start().tenant()
    csr = active(zone)
    workshop = Workshop(csr["csr"])
    for beyond in (other.authority(root), root.root()):
        for method in ("ubiquitous", "force"):

            def post(*path, beyond=beyond, method=method):
                body = {"custom_csr_id": csr["id"], "certificate": mint.pem(*path, beyond), "bundle_method": method}
                return Certificates(zone).post(**body, params={"dry_run": "true"})

            assert post(workshop.leaf(root)).envelope["messages"] == []
            (error,) = post(workshop.leaf(intermediate), root.authority(intermediate)).envelope["errors"]
            assert error["code"] == 1484 and "path length" in error["message"]


def test_a_trust_anchor_whose_key_cannot_be_asked_is_named_with_what_is_wrong_with_it(new_csrd, tmp_path):
    small, unsupported = mint.CA("Small root", small_rsa_key()), mint.CA("Root on P-224", ec.generate_private_key(ec.SECP224R1()))
    (tmp_path / "roots.pem").write_text(mint.pem(small.root(), unsupported.root()))
    zone = new_csrd("--trust-anchors", str(tmp_path / "roots.pem")).start().tenant()
    csr = active(zone)
    workshop, intermediate = Workshop(csr["csr"]), mint.CA("Intermediate below it")
    for root, code, words in ((small, 1478, "the trust anchor O=Acme Trust, CN=Small root has 1024 bits"), (unsupported, 1447, "P-224")):
        for path in ([workshop.leaf(root)], [workshop.leaf(intermediate), root.authority(intermediate)]):
            for method in ("ubiquitous", "force"):
                body = {"custom_csr_id": csr["id"], "certificate": mint.pem(*path), "bundle_method": method}
                (error,) = Certificates(zone).post(**body).envelope["errors"]
                assert error["code"] == code and words in error["message"]


def test_roots_with_any_serial_and_of_any_version_are_trust_anchors_in_a_file_with_a_byte_order_mark(new_csrd, tmp_path):
    roots = [mint.CA(f"Root with the serial {serial}") for serial in SERIALS]
    ders = [root.root(serial=serial, version=version) for root, serial, version in zip(roots, SERIALS.values(), (3, 3, 1, 3), strict=True)]
    (tmp_path / "roots.pem").write_text("\ufeff" + mint.pem(*ders))
    zone = new_csrd("--trust-anchors", str(tmp_path / "roots.pem")).start().tenant()
    csr = active(zone)
    workshop = Workshop(csr["csr"])
    for root in roots:
        answer = Certificates(zone).post(custom_csr_id=csr["id"], certificate=mint.pem(workshop.leaf(root)))
        assert answer.status == 201 and answer.envelope["messages"] == [], answer


@pytest.mark.parametrize("content", ["", "garbage", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", None])
def test_trust_anchors_that_are_none_are_a_bad_setting(new_csrd, tmp_path, content):
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_text(content)
    refused(new_csrd().run("serve", "--listen", "127.0.0.1:0", "--trust-anchors", str(path)), 2, "--trust-anchors")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 3072), ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA", "P-256", "P-384", "P-521", "Ed25519"],
)  # fmt: skip
def test_a_ca_of_any_usual_key_will_do(zone, certificates, key):
    csr = active(zone)
    is_rsa, is_ed25519 = isinstance(key, rsa.RSAPrivateKey), isinstance(key, ed25519.Ed25519PrivateKey)
    for digest in [None] if is_ed25519 else [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]:
        root = Authority(key=key, digest=digest)
        intermediate = Authority("Intermediate", key=key, digest=digest, issuer=root)
        made = certificates.upload(csr["id"], intermediate.issue(csr["csr"]) + intermediate.chain + root.pem)
        name = "Ed25519" if is_ed25519 else f"{digest.name.upper()}WithRSA" if is_rsa else f"ECDSAWith{digest.name.upper()}"
        assert made["signature"] == name


def test_text_around_pem_line_ends_of_any_kind_and_any_order_of_extensions_will_do(zone, certificates):
    csr, root = active(zone), Authority()
    spellings = [
        lambda leaf: leaf.replace("\n", "\r\n"), lambda leaf: f"subject=/C=US\n\n{leaf}\n-- \n{root.pem}  \n", lambda leaf: leaf.rstrip("\n"),
        lambda leaf: f"Certificate:\n    Data:\n{leaf}",
    ]  # fmt: skip
    for spelled in spellings:
        assert certificates.upload(csr["id"], spelled(root.issue(csr["csr"])))["status"] == "active"


# Warnings


def warned(certificates, csr, certificate, **body):
    dry = certificates.post(custom_csr_id=csr["id"], certificate=certificate, params={"dry_run": "true"}, **body)
    answer = certificates.post(custom_csr_id=csr["id"], certificate=certificate, **body)
    assert (dry.status, answer.status) == (200, 201)
    assert dry.envelope["messages"] == answer.envelope["messages"]
    return {code for code, _ in warnings(answer)}, answer.envelope["messages"]


def test_names_that_are_not_those_of_the_csr_are_warned_of(zone, certificates):
    root, csr = Authority(), active(zone, sans=["www.acme-widgets.com", "Shop.acme-widgets.com"])
    names = ["shop.acme-widgets.com", "www.acme-widgets.com"]
    for sans, words in (
        (names, []),
        ([name.upper() for name in names], []),
        ([*names, "more.acme-widgets.com"], ["more.acme-widgets.com"]),
        (names[:1], ["www.acme-widgets.com"]),
        ([names[0], "more.acme-widgets.com"], ["www.acme-widgets.com", "more.acme-widgets.com"]),
        ([*names, x509.IPAddress(ipaddress.ip_address("192.0.2.7"))], ["192.0.2.7"]),
        ([], names),
    ):
        found, messages = warned(certificates, csr, root.issue(csr["csr"], sans=sans) + root.pem)
        assert found == ({2002} if words else set()) | (set() if sans else {2010}), sans
        assert all(word in messages[0]["message"] for word in words)


def test_a_leaf_alone_is_warned_of_unless_it_issued_itself(zone, certificates):
    root, csr = Authority(), active(zone)
    intermediate = Authority("Intermediate", issuer=root)
    assert warned(certificates, csr, root.issue(csr["csr"]))[0] == {2003}
    assert warned(certificates, csr, intermediate.issue(csr["csr"]) + intermediate.pem)[0] == set()
    assert warned(certificates, csr, intermediate.issue(csr["csr"]) + intermediate.pem + root.pem)[0] == set()
    assert warned(certificates, csr, root.issue(csr["csr"], subject=root.name))[0] == set()


def test_a_certificate_that_is_over_soon_is_warned_of(zone, certificates):
    root, csr = Authority(), active(zone)
    for age, left, soon in (
        (300 * DAY, 14 * DAY - 60 * SECOND, True), (300 * DAY, 14 * DAY + 60 * SECOND, False), (SECOND, 200 * DAY, False),
        # A fifth of the lifetime, where that is less.
        (9 * DAY, 2 * DAY, True), (5 * DAY, 2 * DAY, False), (SECOND, DAY, False),
    ):  # fmt: skip
        leaf = root.issue(csr["csr"], begins=-age, ends=left)
        assert warned(certificates, csr, leaf + root.pem)[0] == ({2004} if soon else set()), (age, left)


def test_members_without_effect_are_warned_of(zone, certificates):
    root, csr = Authority(), active(zone)
    chain = root.issue(csr["csr"]) + root.pem
    body = {"deploy": "staging", "geo_restrictions": {"label": "us"}, "policy": "(country: US)", "type": "legacy_custom"}
    answer = certificates.post(custom_csr_id=csr["id"], certificate=chain, **body)
    assert answer.status == 201 and sorted(warnings(answer)) == [(2005, f"/{name}") for name in sorted(body)]
    assert answer.result["type"] == "legacy_custom"
    for harmless in ({"type": "sni_custom"}, {"bundle_method": "force"}, {"deploy": None}, {"unknown": None}):
        assert warned(certificates, csr, root.issue(csr["csr"]) + root.pem, **harmless)[0] == set()
    answer = certificates.patch(answer.result["id"], bundle_method="optimal", policy="x", deploy="production", certficate="x")
    assert answer.status == 200 and sorted(warnings(answer)) == [(2005, "/deploy"), (2005, "/policy"), (2012, "/certficate")]


def test_a_certificate_that_is_sent_back_as_it_was_read_has_no_member_that_is_unknown(zone, certificates):
    root, csr = Authority(), active(zone)
    made = certificates.get(certificates.upload(csr["id"], root.issue(csr["csr"]) + root.pem)["id"])
    answer = certificates.patch(made["id"], **made)
    assert answer.status == 200, answer.envelope
    found = {code for code, _ in warnings(answer)}
    assert 2005 in found and 2012 not in found, answer.envelope


def test_all_warnings_may_come_at_once(zone, certificates):
    csr = active(zone)
    found, _ = warned(certificates, csr, Authority().issue(csr["csr"], begins=-9 * DAY, ends=DAY, sans=["b.org"]), deploy="staging")
    assert found == {2002, 2003, 2004, 2005}
