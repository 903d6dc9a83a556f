"""What one client cannot take from the others, as an operator sets it."""

import json

import pytest
from harness import codes, refused, run, subject


def test_the_audit_names_the_client_for_whom_a_trusted_proxy_asks(new_csrd):
    csrd = new_csrd("--trusted-proxies", "10.0.0.0/8, ::1", "--trusted-proxies", "127.0.0.1").start()
    zone = csrd.tenant()
    for forwarded, came_from in [("6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7"), ("192.0.2.8, unknown", "127.0.0.1"), (None, "127.0.0.1")]:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        made = zone.request("POST", headers=headers, json=subject()).result
        last = json.loads(csrd.ok("audit", "--action", "create").splitlines()[-1])
        assert (last["resource"], last["from"]) == (f"custom_csr/{made['id']}", came_from), forwarded
    assert codes(zone.request("GET", headers={"X-Forwarded-For": "192.0.2.9"}, token="x.y.z").envelope) == [1001]
    assert "192.0.2.9" in csrd.log()


@pytest.mark.parametrize("networks", ["10.0.0.0/33", "proxy.example", "10.0.0.0/8;10.1.0.0/16", ""])
def test_proxies_that_are_no_networks_are_a_bad_setting(networks, tmp_path):
    refused(run("serve", f"--trusted-proxies={networks}", cwd=tmp_path), 2, "--trusted-proxies")
