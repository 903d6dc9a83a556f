"""What browsers and caches in front of the API rely on: origins that may ask, and answers that have not changed."""

import pytest
from ca import Authority, Certificates, active
from harness import refused, run

APP, OTHER = "https://app.example", "http://localhost:3000"


def leave(csrd, origin: str) -> str | None:
    """The origin that may read an answer."""
    response = csrd.client.get(f"{csrd.url}/api/v4/zones/demo/custom_csrs", headers={"Origin": origin, "Authorization": "Bearer x"})
    assert response.status_code == 401
    return response.headers.get("Access-Control-Allow-Origin")


def test_origins_are_given_one_by_one_or_in_a_variable(new_csrd):
    given = new_csrd("--cors-origin", "https://App.example:443", "--cors-origin", OTHER).start()
    assert [leave(given, origin) for origin in (APP, OTHER, "https://evil.example")] == [APP, OTHER, None]
    given.stop()
    from_variable = new_csrd(env={"CSRD_CORS_ORIGIN": f"{APP},{OTHER}"}, name="variable").start()
    assert [leave(from_variable, origin) for origin in (APP, OTHER, "https://evil.example")] == [APP, OTHER, None]


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/page"])
def test_what_is_no_origin_is_refused(tmp_path, origin):
    refused(run("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--cors-origin", origin, cwd=tmp_path), 2, "--cors-origin")


def test_a_custom_certificate_has_a_tag_until_it_changes(service):
    zone, root = service.tenant(), Authority()
    csr, certificates = active(zone), Certificates(zone)
    made = certificates.upload(csr["id"], root.issue(csr["csr"]) + root.pem)
    path = f"{certificates.path}/{made['id']}"

    def get(*known: str):
        headers = {"Authorization": f"Bearer {zone.token}"} | ({"If-None-Match": ", ".join(known)} if known else {})
        return service.client.get(service.url + path, headers=headers)

    first = get()
    tag = first.headers["ETag"]
    again = get('"other"', f"W/{tag}")
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    renewed = service.request("PATCH", path, token=zone.token, json={"certificate": root.issue(csr["csr"]) + root.pem})
    assert renewed.status == 200
    changed = get(tag)
    assert changed.status_code == 200 and changed.headers["ETag"] != tag
