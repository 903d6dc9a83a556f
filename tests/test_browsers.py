"""What browsers and caches in front of the API rely on: origins that may ask, and answers that have not changed."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ca import Authority, Certificates, active
from harness import Tenant, refused, run, subject
from test_swagger_ui import browser  # noqa: F401
from tools import target

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


# What a page does with the official client, which repeats a DELETE after 409 unless x-should-retry forbids it.
WITH_THE_OFFICIAL_CLIENT = """
    const [baseURL, apiToken, zone_id, custom_csr_id, body, done] = arguments;
    (async () => {
        const { default: Cloudflare } = await import(`${location.origin}/index.mjs`);
        const client = new Cloudflare({ baseURL, apiToken });
        const made = await client.customCsrs.create({ zone_id, ...body });
        const listed = [];
        for await (const one of client.customCsrs.list({ zone_id })) listed.push(one.id);
        const refusal = await client.customCsrs.delete(custom_csr_id, { zone_id }).catch((error) => error);
        done({ made: made.id, listed, refusal: refusal.status });
    })().catch((error) => done({ error: `${error}` }));
"""


@pytest.fixture
def site():
    """Another site, which has the official client for pages to import."""

    class Quiet(SimpleHTTPRequestHandler):
        extensions_map = {".mjs": "text/javascript"}

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=target() / "npm/node_modules/cloudflare"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_official_client_works_in_a_page_of_an_origin_that_may_ask(new_csrd, site, browser):  # noqa: F811
    csrd = new_csrd("--cors-origin", site).start()
    zone, root = Tenant(csrd, "zone", "demo", csrd.token("--zone", "demo")), Authority()
    used = active(zone)
    Certificates(zone).upload(used["id"], root.issue(used["csr"]) + root.pem)
    browser.get(f"{site}/package.json")
    arguments = (f"{csrd.url}/client/v4", zone.token, zone.id, used["id"], subject())
    seen = browser.execute_async_script(WITH_THE_OFFICIAL_CLIENT, *arguments)
    assert seen == {"made": zone.page().result[0]["id"], "listed": [seen.get("made"), used["id"]], "refusal": 409}, seen
    assert csrd.log().count("method=DELETE") == 1, "the client reads that it is not to repeat it"
