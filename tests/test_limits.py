"""What one client cannot take from the others, as an operator sets it."""

import json

import pytest
from ca import active
from databases import new_service  # noqa: F401
from harness import Csrd, Tenant, codes, refused, run, subject, wait_until


@pytest.fixture(scope="module")
def behind_proxies(new_service) -> Csrd:  # noqa: F811
    return new_service("sqlite", "--trusted-proxies", "10.0.0.0/8, ::1", "--trusted-proxies", "127.0.0.1", "--auth-failure-limit", "1")


def test_the_audit_and_the_log_name_the_client_for_whom_a_trusted_proxy_asks(behind_proxies):
    zone = behind_proxies.tenant()
    for forwarded, came_from in [("6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7"), ("192.0.2.8, unknown", "127.0.0.1"), (None, "127.0.0.1")]:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        made = zone.request("POST", headers=headers, json=subject()).result
        last = json.loads(behind_proxies.ok("audit", "--action", "create").splitlines()[-1])
        assert (last["resource"], last["from"]) == (f"custom_csr/{made['id']}", came_from), forwarded
    assert codes(zone.request("GET", headers={"X-Forwarded-For": "192.0.2.9"}, token="x.y.z").envelope) == [1001]
    wait_until(lambda: "192.0.2.9" in behind_proxies.log(), "the client is in the log")


def test_a_hand_over_link_has_the_scheme_by_which_a_trusted_proxy_was_asked(behind_proxies, new_service):  # noqa: F811
    for service, told, scheme in [(behind_proxies, "https", "https"), (behind_proxies, None, "http"), (new_service("sqlite"), "https", "http")]:
        zone = service.tenant()
        made = active(zone)
        headers = {"X-Forwarded-Proto": told} if told else {}
        link = zone.request("POST", f"/{made['id']}/handover", headers=headers).result
        assert link["url"].startswith(f"{scheme}://127.0.0.1:"), told


def test_an_address_that_keeps_failing_is_1470_whatever_its_token_and_the_others_are_served(behind_proxies):
    zone = behind_proxies.tenant()

    def ask(client: str, token: str) -> list[int]:
        answer = zone.request("GET", headers={"X-Forwarded-For": client}, token=token)
        assert ("Retry-After" in answer.headers) is (answer.status == 429)
        return codes(answer.envelope)

    def refused_both() -> bool:
        return ask("192.0.2.1", "x.y.z") == ask("192.0.2.1", zone.token) == [1470]

    wait_until(refused_both, "the address has used up its failures", 120)
    assert ask("192.0.2.2", zone.token) == []
    wait_until(lambda: ask("192.0.2.1", zone.token) == [], "a second later it is heard again")


def test_a_subject_that_keeps_asking_is_1470_and_a_body_without_room_is_1471(new_csrd):
    csrd = new_csrd("--rate-limit", "1", "--max-body-bytes-in-flight", "1000B").start()
    zone = csrd.tenant()

    def of(name: str) -> Tenant:
        return Tenant(csrd, "zone", zone.id, csrd.token("--zone", zone.id, "--subject", name))

    busy, slow, other = of("busy"), of("slow"), of("other")
    answer = wait_until(lambda: next((a for a in [busy.request("GET")] if a.status != 200), None), "there are too many requests", 120)
    assert codes(answer.envelope) == [1470] and answer.headers["Retry-After"] == "1"
    with csrd.connection() as connection:
        head = f"POST {slow.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow.token}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100"), "its room is taken"
        answer = other.request("POST", json=subject())
        assert codes(answer.envelope) == [1471] and "Retry-After" in answer.headers
    wait_until(lambda: other.request("POST", json=subject()).status == 201, "the room is given back")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--trusted-proxies", networks) for networks in ("10.0.0.0/33", "proxy.example", "10.0.0.0/8;10.1.0.0/16", "")),
        ("--rate-limit", "-1"), ("--rate-limit", "many"), ("--auth-failure-limit", "-1"), ("--auth-failure-limit", "1000001"),
        ("--max-body-bytes-in-flight", "0"), ("--max-body-bytes-in-flight", "-1"), ("--max-body-bytes-in-flight", "64 apples"),
    ],
)  # fmt: skip
def test_a_limit_that_is_none_is_a_bad_setting(option, value, tmp_path):
    refused(run("serve", f"{option}={value}", cwd=tmp_path), 2, option)
