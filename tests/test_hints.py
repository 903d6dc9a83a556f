"""What an error says beside its text: to the tenant in the answer, and to the operator in the log."""

import base64
import json

import pytest
from ca import Authority, Certificates, active, warnings
from harness import Csrd, bearer, codes, faults, refused, run, subject, wait_until

CONTACT = "https://platform.example/help"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    csrd = Csrd(tmp_path_factory.mktemp("hints"), "--contact-url", CONTACT, "--log-format", "json").start()
    yield csrd
    csrd.close()


def hints(answer) -> list[str]:
    return [entry["message"] for entry in answer.envelope["messages"] if entry["code"] == 2100]


def line_of(service: Csrd, answer) -> dict:
    """The last line of the log about a request."""

    def found():
        lines = [line for line in service.log().splitlines() if answer.headers["X-Request-Id"] in line and '"answered"' in line]
        return lines and json.loads(lines[-1])

    return wait_until(found, "the request is in the log")


def encoded(part: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_the_log_names_code_cause_subject_key_and_client_of_a_refused_token_and_nothing_else_of_it(service):
    signature = "c2lnbmF0dXJl"
    claims = {"sub": "some\u001bone\n" + "x" * 500, "zones": ["secret-zone"], "exp": 1}
    token = f"{encoded({'alg': 'HS256', 'kid': 'key-7'})}.{encoded(claims)}.{signature}"
    answer = service.request("GET", "/api/v4/zones/z/custom_csrs", token=token)
    assert codes(answer.envelope) == [1003] and 'error_description="bad signature"' in answer.headers["WWW-Authenticate"]
    line = line_of(service, answer)
    assert (line["codes"], line["reason"], line["kid"], line["from"]) == ("1003", "bad signature", "key-7", "127.0.0.1")
    assert line["sub"].startswith("some\\u001bone\\u000axxx") and len(line["sub"]) < 100
    assert all(part not in service.log() for part in (token, encoded(claims), signature, "secret-zone"))


def test_the_log_names_all_codes_of_a_request_and_who_sent_it(service):
    zone = service.tenant()
    answer = zone.request("POST", json=subject(country="UK", sans=["*.acme-widgets.com"]))
    assert codes(answer.envelope) == [1412, 1460]
    line = line_of(service, answer)
    assert line["codes"] == "1412,1460" and "is a wildcard" in line["reason"] and line["sub"] and line["from"] == "127.0.0.1"
    accepted = zone.request("GET")
    assert "codes" not in line_of(service, accepted)


def test_who_lacks_access_reads_the_cause_and_where_to_ask(service):
    zone = service.tenant()
    stranger = service.request("GET", "/api/v4/zones/another/custom_csrs", headers=bearer(zone))
    assert codes(stranger.envelope) == [1404]
    (hint,) = hints(stranger)
    assert "does not reach this zone" in hint and hint.endswith(CONTACT)
    service.ok("zone", "revoke", zone.id)
    (hint,) = hints(zone.request("POST", json=subject()))
    assert "was revoked" in hint and hint.endswith(CONTACT)


def test_a_misspelled_member_is_named_where_the_request_is_refused_too(service):
    zone = service.tenant()
    answer = zone.request("POST", json=subject(common_name=..., comon_name="www.acme-widgets.com"))
    assert faults(answer.envelope) == [(1409, "/common_name")] and warnings(answer) == [(2012, "/comon_name")]
    answer = zone.request("POST", json=subject(sans=["*.acme-widgets.com"], x=1, y=None))
    assert codes(answer.envelope) == [1412] and warnings(answer) == [(2012, "/x"), (2100, "/sans/0")]
    answer = Certificates(zone).post(certficate="")
    assert codes(answer.envelope) == [1427] and warnings(answer) == [(2012, "/certficate")]
    # Nothing is said of a body before its sender is known.
    answer = service.request("POST", zone.path, json=subject(x=1))
    assert codes(answer.envelope) == [1402] and warnings(answer) == []


def test_an_upload_that_is_too_large_is_told_what_it_can_leave_out(service):
    zone = service.tenant()
    certificates = Certificates(zone)
    for answer in (
        certificates.post(certificate="x" * 70_000),
        certificates.patch("0" * 32, certificate="x" * 70_000),
        # Without a length, which is found out while it is read.
        certificates.request("POST", content=iter([b"x" * 70_000]), headers={"Content-Type": "application/json"}),
    ):
        assert codes(answer.envelope) == [1467] and "text around the PEM blocks" in hints(answer)[0], answer
    answer = zone.request("POST", json=subject(description="x" * 70_000))
    assert codes(answer.envelope) == [1467] and hints(answer) == []


def test_a_name_that_the_public_dns_cannot_have_is_warned_of(service):
    answer = service.tenant().request("POST", json=subject(sans=["www.acme-widgets.com", "printer.local"]))
    assert answer.status == 201 and warnings(answer) == [(2013, "/sans/1")]
    assert "‘.local’" in answer.envelope["messages"][0]["message"]


def test_a_custom_csr_in_use_names_its_certificates_and_how_to_free_it(service):
    zone, root = service.tenant(), Authority()
    csr = active(zone)
    made = Certificates(zone).upload(csr["id"], root.issue(csr["csr"]) + root.pem)
    answer = zone.request("DELETE", f"/{csr['id']}")
    assert codes(answer.envelope) == [1420]
    (hint,) = hints(answer)
    assert made["id"] in hint and "PATCH" in hint


def test_a_contact_that_is_no_web_address_is_refused(tmp_path):
    refused(run("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--contact-url", "mailto:me", cwd=tmp_path), 2, "--contact-url", "http")
