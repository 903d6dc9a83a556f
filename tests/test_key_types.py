"""Key types beyond the default, and keys that are not to be used."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from ca import Certificates, openssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from harness import subject
from test_certificate_export import Uploaded

ALL = "rsa2048,p256v1,rsa3072,rsa4096,p384,ed25519,mldsa44"
OIDS = x509.SignatureAlgorithmOID
MORE = {
    "rsa3072": (rsa.RSAPublicKey, 3072, OIDS.RSA_WITH_SHA256, "sha256WithRSAEncryption"),
    "rsa4096": (rsa.RSAPublicKey, 4096, OIDS.RSA_WITH_SHA256, "sha256WithRSAEncryption"),
    "p384": (ec.EllipticCurvePublicKey, 384, OIDS.ECDSA_WITH_SHA384, "ecdsa-with-SHA384"),
    "ed25519": (ed25519.Ed25519PublicKey, None, OIDS.ED25519, "ED25519"),
}


def text(accepted: str) -> str:
    return f"Invalid key type. Only {accepted} is accepted. Check your input and try again."


def refusal(zone, suffix: str = "", **body) -> tuple[int, list[tuple[int, str]]]:
    """The answer to a POST, whose text need not be that of the default."""
    headers = {"Authorization": f"Bearer {zone.token}"}
    answer = zone.service.client.post(zone.service.url + zone.path + suffix, json=body, headers=headers)
    return answer.status_code, [(error["code"], error["message"]) for error in answer.json()["errors"]]


def test_every_key_type_goes_from_the_request_to_the_exported_certificate(new_csrd, tmp_path):
    csrd = new_csrd("--key-types", ALL, "--key-pool-size", "0").start()
    for key_type, (kind, bits, oid, name) in MORE.items():
        uploaded = Uploaded(csrd, key_type)
        csr = x509.load_pem_x509_csr(uploaded.csr["csr"].encode())
        key = csr.public_key()
        assert uploaded.csr["key_type"] == key_type and isinstance(key, kind) and getattr(key, "key_size", None) == bits
        assert csr.is_signature_valid and csr.signature_algorithm_oid == oid
        (path := tmp_path / f"{key_type}.csr").write_text(uploaded.csr["csr"])
        read = openssl("req", "-in", path, "-verify", "-noout", "-text")
        assert "verify OK" in read and f"Signature Algorithm: {name}" in read
        uploaded.exported(out := tmp_path / key_type)
        private_key = load_pem_private_key((out / "privkey.pem").read_bytes(), None)
        assert private_key.public_key() == key
        openssl("pkey", "-in", out / "privkey.pem", "-check", "-noout")
    # A rekey copies the type, or changes it.
    zone, csr_id = uploaded.zone, uploaded.csr["id"]
    kept = zone.request("POST", f"/{csr_id}/rekey", headers={"Prefer": "wait=30"}).result
    assert (kept["key_type"], kept["status"]) == ("ed25519", "active") and kept["csr"] != uploaded.csr["csr"]
    changed = zone.request("POST", f"/{csr_id}/rekey", json={"key_type": "P384"}, headers={"Prefer": "wait=30"}).result
    assert (changed["key_type"], changed["status"]) == ("p384", "active")
    assert [found["id"] for found in zone.request("GET", "?key_type=p384").result] == [changed["id"]]
    accepted = "‘rsa2048’, ‘p256v1’, ‘rsa3072’, ‘rsa4096’, ‘p384’, ‘ed25519’ or ‘mldsa44’"
    assert refusal(zone, **subject(key_type="dsa")) == (400, [(1417, text(accepted))])
    document = csrd.client.get(csrd.url + "/openapi.json").json()
    assert document["components"]["schemas"]["KeyType"]["enum"] == ALL.split(",")
    assert csrd.stop() == 0

    # The type of what was made stays; a rekey needs one that is accepted now.
    csrd = new_csrd().start()
    zone.service = csrd
    assert zone.get(csr_id)["key_type"] == "ed25519"
    assert refusal(zone, f"/{csr_id}/rekey") == (400, [(1417, text("‘rsa2048’ or ‘p256v1’"))])


def test_a_set_has_a_post_quantum_key_beside_the_usual_ones(new_csrd, tmp_path):
    csrd = new_csrd("--key-types", "rsa2048,p256v1,mldsa44", "--key-pool-size", "0").start()
    zone = csrd.tenant()
    body = {name: value for name, value in subject().items() if name != "key_type"} | {"key_types": ["rsa2048", "p256v1", "mldsa44"]}
    made = zone.request("POST", json=body, headers={"Prefer": "wait=30"}).result
    kinds = [rsa.RSAPublicKey, ec.EllipticCurvePublicKey, mldsa.MLDSA44PublicKey]
    csrs = [x509.load_pem_x509_csr(csr["csr"].encode()) for csr in made]
    assert [(csr["key_type"], csr["status"]) for csr in made] == [(name, "active") for name in body["key_types"]]
    # OpenSSL of Debian 12 knows no ML-DSA. That in the package cryptography does.
    assert all(isinstance(csr.public_key(), kind) and csr.is_signature_valid for csr, kind in zip(csrs, kinds, strict=True))
    csr = csrs[2]
    assert csr.signature_algorithm_oid.dotted_string == "2.16.840.1.101.3.4.3.17"
    assert csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == body["sans"]

    now = datetime.now(UTC)
    root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
    leaf = x509.CertificateBuilder(root, csr.subject, csr.public_key(), 7, now - timedelta(hours=1), now + timedelta(days=47), list(csr.extensions))
    certificate = leaf.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    stored = Certificates(zone).upload(made[2]["id"], certificate.public_bytes(Encoding.PEM).decode())
    csrd.ok("certificate", "export", stored["id"], "--out", str(out := tmp_path / "tls"))
    private_key = load_pem_private_key((out / "privkey.pem").read_bytes(), None)
    certificate.public_key().verify(private_key.sign(b"served"), b"served")


def test_the_default_is_a_key_type_like_the_others(new_csrd):
    csrd = new_csrd("--key-types", "p384", "--key-pool-size", "0").start()
    assert refusal(csrd.tenant(), **subject(key_type="")) == (400, [(1417, text("‘p384’"))])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--key-types", "rsa2048,dsa"), "--key-types"),
        (("--key-types", ""), "--key-types"),
        (("--blocked-keys", "nowhere"), "--blocked-keys: nowhere: there is no such file"),
        (("--blocked-keys", "/dev/zero"), "--blocked-keys: /dev/zero: it is not a regular file"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(new_csrd, options, said):
    done = new_csrd().run("serve", *options)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr, done


def test_a_line_of_the_blocked_keys_that_is_none_is_named(new_csrd, tmp_path):
    (blocked := tmp_path / "blocked").write_text(f"# known keys\n\n{'0a' * 32}  # of 2024\n{'0A' * 32}\n{'0a' * 31}\n")
    done = new_csrd().run("serve", "--blocked-keys", str(blocked))
    assert done.returncode == 2 and f"--blocked-keys: {blocked}: line 5 " in done.stderr, done


def test_a_start_with_blocked_keys_makes_keys(new_csrd, tmp_path):
    (blocked := tmp_path / "blocked").write_text(f"{'0a' * 32}\n")
    csrd = new_csrd("--blocked-keys", str(blocked)).start()
    zone = csrd.tenant()
    csr = x509.load_pem_x509_csr(zone.wait_active(zone.create()["id"])["csr"].encode())
    assert hashlib.sha256(csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest() != "0a" * 32
