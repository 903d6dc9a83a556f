"""A CSR as a file of its own, compressed bodies, and replays that say what they are."""

import gzip
import json
import subprocess

import pytest
from harness import codes, subject

PEM, DER = "application/x-pem-file", "application/pkcs10"


@pytest.fixture
def active(zone) -> dict:
    answer = zone.request("POST", json=subject(), headers={"Prefer": "wait=20"})
    assert answer.status == 201 and answer.result["status"] == "active"
    return answer.result


def as_file(zone, csr_id: str, accept: str, **headers):
    headers |= {"Authorization": f"Bearer {zone.token}", "Accept": accept}
    return zone.service.client.get(f"{zone.service.url}{zone.path}/{csr_id}", headers=headers)


def test_a_csr_is_sent_alone_as_pem_or_der_to_who_asks_for_that(zone, active):
    pem = as_file(zone, active["id"], PEM)
    assert (pem.status_code, pem.headers["Content-Type"], pem.text) == (200, PEM, active["csr"])
    der = as_file(zone, active["id"], DER)
    assert (der.status_code, der.headers["Content-Type"]) == (200, DER)
    read = subprocess.run(["openssl", "req", "-inform", "DER", "-outform", "PEM", "-verify"], input=der.content, capture_output=True, check=True)
    assert b"verify OK" in read.stderr and read.stdout.decode() == active["csr"]
    for plain in ("*/*", "application/json", "text/html", f"application/json, {PEM};q=0.5"):
        assert as_file(zone, active["id"], plain).json()["result"]["id"] == active["id"]


@pytest.mark.parametrize("accept", [PEM, DER])
def test_a_csr_that_is_not_made_yet_is_waited_for_or_406_in_the_envelope(new_csrd, accept):
    csrd = new_csrd("--workers", "0").start()
    zone = csrd.tenant("zone")
    pending = zone.create()
    answer = zone.request("GET", f"/{pending['id']}", headers={"Accept": accept})
    assert answer.status == 406 and codes(answer.envelope) == [1469]
    assert answer.envelope["errors"][0]["source"] == {"header": "Accept"}


def test_a_csr_is_waited_for_before_it_is_sent_as_a_file(zone):
    made = zone.create(key_type="rsa2048")
    pem = as_file(zone, made["id"], PEM, Prefer="wait=30")
    assert pem.status_code == 200 and pem.text.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert pem.headers["Preference-Applied"] == "wait=30"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "x", "GZIP"])
def test_a_compressed_body_is_415_alone_and_says_what_is_accepted(zone, encoding):
    body = gzip.compress(json.dumps(subject(country="", sans=[])).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding, "Idempotency-Key": "\u00fc".encode("latin-1")}
    answer = zone.request("POST", content=body, headers=headers)
    assert answer.status == 415 and codes(answer.envelope) == [1468]
    assert answer.headers["Accept-Encoding"] == "identity"
    assert zone.total() == 0


def test_a_body_whose_encoding_is_its_own_is_read(zone):
    for encoding in ("identity", "", "Identity, identity"):
        assert zone.request("POST", json=subject(), headers={"Content-Encoding": encoding}).status == 201


def test_a_replay_says_that_it_is_one(zone):
    headers = {"Idempotency-Key": "once"}
    first, again = (zone.request("POST", json=subject(), headers=headers) for _ in range(2))
    assert "Idempotent-Replayed" not in first.headers and again.headers["Idempotent-Replayed"] == "true"
    assert first.result["id"] == again.result["id"]
