"""The CSRs, read by OpenSSL and by Python's `cryptography`, and signed by a CA."""

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from harness import subject

GIVEN = subject(
    country="de",
    state="Baden-Württemberg",
    locality="Zürich / Île-de-France",
    organization="  Müller & Söhne, “株式会社” + Co.  ",
    organizational_unit="R&D=🔑",
    common_name="Www.Acme-Widgets.com",
    sans=[
        "WWW.Acme-Widgets.com",
        "www.acme-widgets.com",
        "under_score.acme-widgets.com",
        "Zz.acme-widgets.com",
        "aa.acme-widgets.com",
        "zz.ACME-widgets.com",
        "xn--bcher-kva.de",
    ],
)
SANS = ["www.acme-widgets.com", "under_score.acme-widgets.com", "zz.acme-widgets.com", "aa.acme-widgets.com", "xn--bcher-kva.de"]
SUBJECT = [
    (NameOID.COUNTRY_NAME, "DE"),
    (NameOID.STATE_OR_PROVINCE_NAME, GIVEN["state"]),
    (NameOID.LOCALITY_NAME, GIVEN["locality"]),
    (NameOID.ORGANIZATION_NAME, GIVEN["organization"]),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, GIVEN["organizational_unit"]),
    (NameOID.COMMON_NAME, GIVEN["common_name"]),
]
SEQUENCE, SET, OID, INTEGER, OCTET_STRING, PRINTABLE_STRING, UTF8_STRING, CONTEXT_0 = 0x30, 0x31, 0x06, 0x02, 0x04, 0x13, 0x0C, 0xA0
DNS_NAME = 0x82
EXTENSION_REQUEST = bytes.fromhex("2a864886f70d01090e")
SUBJECT_ALT_NAME = bytes.fromhex("551d11")


@pytest.fixture(scope="module", params=["rsa2048", "p256v1"])
def made(request, service) -> dict:
    """An active custom CSR with everything in it."""
    zone = service.tenant("zone")
    return zone.wait_active(zone.create(**GIVEN | {"key_type": request.param})["id"])


@pytest.fixture
def csr(made) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(made["csr"].encode())


@pytest.fixture
def csr_file(made, tmp_path):
    path = tmp_path / "request.pem"
    path.write_text(made["csr"])
    return path


def elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element; DER with one-byte tags."""
    found = []
    while der:
        tag, length, start = der[0], der[1], 2
        if length >= 0x80:
            start += length - 0x80
            length = int.from_bytes(der[2:start])
        assert len(der) >= start + length
        found.append((tag, der[start : start + length]))
        der = der[start + length :]
    return found


def info(csr: x509.CertificateSigningRequest) -> list[tuple[int, bytes]]:
    """The elements of the CertificationRequestInfo (RFC 2986, section 4.1)."""
    ((tag, whole),) = elements(csr.public_bytes(Encoding.DER))
    assert tag == SEQUENCE
    return elements(elements(whole)[0][1])


def openssl(*arguments) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def test_the_response_has_the_values_as_given(made):
    for name, value in GIVEN.items():
        if name != "key_type":
            assert made[name] == value


def test_the_pem_is_one_block_and_ends_with_a_newline(made):
    lines = made["csr"].split("\n")
    assert lines[0] == "-----BEGIN CERTIFICATE REQUEST-----"
    assert lines[-2:] == ["-----END CERTIFICATE REQUEST-----", ""]
    assert all(len(line) == 64 for line in lines[1:-3]) and 0 < len(lines[-3]) <= 64
    assert "\r" not in made["csr"]


def test_the_subject_has_its_order_its_string_types_and_the_values_as_given(csr):
    assert [(attribute.oid, attribute.value) for attribute in csr.subject] == SUBJECT
    version, name, _key, _attributes = info(csr)
    assert version == (INTEGER, b"\0")
    assert name[0] == SEQUENCE
    types = []
    for tag, rdn in elements(name[1]):
        assert tag == SET
        ((_, attribute),) = elements(rdn)
        types.append(elements(attribute)[1][0])
    assert types == [PRINTABLE_STRING] + [UTF8_STRING] * 5


def test_an_optional_unit_that_is_not_given_is_not_in_the_subject(zone):
    made = zone.wait_active(zone.create(organizational_unit=" ")["id"])
    found = x509.load_pem_x509_csr(made["csr"].encode()).subject
    assert [a.oid for a in found] == [oid for oid, _ in SUBJECT if oid != NameOID.ORGANIZATIONAL_UNIT_NAME]


def test_the_sans_are_lower_case_without_repeats_in_the_order_given(csr):
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name) for name in names] == [x509.DNSName] * len(SANS)
    assert [name.value for name in names] == SANS


def test_the_only_attribute_is_an_extension_request_with_only_sans(csr):
    assert [extension.oid for extension in csr.extensions] == [ExtensionOID.SUBJECT_ALTERNATIVE_NAME]
    _version, _name, _key, (tag, attributes) = info(csr)
    assert tag == CONTEXT_0
    ((tag, attribute),) = elements(attributes)
    assert tag == SEQUENCE
    oid, (tag, values) = elements(attribute)
    assert oid == (OID, EXTENSION_REQUEST) and tag == SET
    ((tag, extensions),) = elements(values)
    assert tag == SEQUENCE
    ((tag, extension),) = elements(extensions)
    oid, *_critical, (tag, value) = elements(extension)
    assert oid == (OID, SUBJECT_ALT_NAME) and tag == OCTET_STRING
    ((_, names),) = elements(value)
    assert elements(names) == [(DNS_NAME, name.encode()) for name in SANS]


def test_the_key_and_the_signature_are_those_of_the_key_type(made, csr):
    assert csr.is_signature_valid
    assert isinstance(csr.signature_hash_algorithm, hashes.SHA256)
    key = csr.public_key()
    if made["key_type"] == "rsa2048":
        assert isinstance(key, rsa.RSAPublicKey)
        assert (key.key_size, key.public_numbers().e) == (2048, 65537)
        assert csr.signature_algorithm_oid == x509.SignatureAlgorithmOID.RSA_WITH_SHA256
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert csr.signature_algorithm_oid == x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256


def test_openssl_reads_and_verifies_it(made, csr_file):
    text = openssl("req", "-in", csr_file, "-verify", "-noout", "-text", "-nameopt", "utf8,sep_multiline,sname")
    assert "verify OK" in text
    assert "Version: 1 (0x0)" in text
    assert "C=DE" in text and f"CN={GIVEN['common_name']}" in text and f"OU={GIVEN['organizational_unit']}" in text
    assert ", ".join(f"DNS:{name}" for name in SANS) in text
    if made["key_type"] == "rsa2048":
        assert "Public-Key: (2048 bit)" in text and "Exponent: 65537 (0x10001)" in text
        assert "Signature Algorithm: sha256WithRSAEncryption" in text
    else:
        assert "NIST CURVE: P-256" in text
        assert "Signature Algorithm: ecdsa-with-SHA256" in text


def test_openssl_finds_a_changed_csr(csr_file, csr):
    der = bytearray(csr.public_bytes(Encoding.DER))
    der[der.index(b"www.acme-widgets.com")] ^= 1
    (changed := csr_file.with_suffix(".der")).write_bytes(der)
    command = ["openssl", "req", "-in", changed, "-inform", "DER", "-verify", "-noout"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "verify OK" not in done.stdout + done.stderr


def test_a_ca_signs_it(csr, csr_file, tmp_path):
    ca, ca_key, leaf = tmp_path / "ca.pem", tmp_path / "ca.key", tmp_path / "leaf.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=CA of a test",
            "-days", "2", "-keyout", ca_key, "-out", ca)
    openssl("x509", "-req", "-in", csr_file, "-CA", ca, "-CAkey", ca_key, "-copy_extensions", "copy", "-days", "1", "-out", leaf)
    openssl("verify", "-CAfile", ca, "-verify_hostname", "aa.acme-widgets.com", leaf)
    certificate = x509.load_pem_x509_certificate(leaf.read_bytes())
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key().public_bytes(*spki) == csr.public_key().public_bytes(*spki)
    assert certificate.subject == csr.subject
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == SANS
