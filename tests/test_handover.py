"""Hand-over links: whoever has one takes the CSR and brings the certificate, without an account and without script."""

import base64
import datetime
import gzip
import os
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
import uuid
from contextlib import suppress
from email.message import Message
from pathlib import Path

import pytest
from ca import Authority, Certificates, active
from databases import audit_table, either, new_service  # noqa: F401
from harness import binary, codes, environment
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as is_
from selenium.webdriver.support.wait import WebDriverWait
from test_swagger_ui import browser, requested  # noqa: F401

ROOT = Authority()
LINK = re.compile(r"http://127\.0\.0\.1:\d+/handover/([A-Za-z0-9_-]{43})")
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def zone(either):  # noqa: F811
    return either.tenant()


def handovers(zone, csr: dict, method: str, rest: str = "", body: dict | None = None):
    arguments = {} if body is None else {"json": body}
    return zone.request(method, f"/{csr['id']}/handover{rest}", **arguments)


def made(zone, csr: dict, **body) -> dict:
    answer = handovers(zone, csr, "POST", body=body)
    assert answer.status == 201, answer
    return answer.result


def fetch(url: str, data: bytes | None = None, headers: dict | None = None) -> tuple[int, Message, str]:
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def post(url: str, files: dict[str, bytes]) -> tuple[int, Message, str]:
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.crt"\r\n\r\n'.encode() + file for name, file in files.items()]
    return fetch(url, b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()]), {"Content-Type": f"multipart/form-data; boundary={boundary}"})


def bring(url: str, *, text: str = "", file: bytes = b"") -> tuple[int, Message, str]:
    """As a browser sends the form."""
    return post(url, {"file": file, "certificate": text.encode()})


def chain(csr: dict, **options) -> str:
    return ROOT.issue(csr["csr"], **options) + ROOT.pem


def audit(zone) -> list[tuple[str, str]]:
    rows = zone.service.sql(f"SELECT action, via FROM {audit_table(zone.service)} WHERE scope = 'zones/{zone.id}' ORDER BY number")
    return [row for row in rows if row[0].startswith("handover") or row[1] == "handover"]


def test_a_link_is_made_listed_without_its_url_and_revoked(zone):
    csr = active(zone)
    answer = handovers(zone, csr, "POST", body={"note": "Dear IT", "expires_in": 3600})
    assert answer.status == 201 and set(answer.result) == {"id", "url", "expires_at", "note", "created_at"}
    link = answer.result
    assert LINK.fullmatch(link["url"])
    lasts = datetime.datetime.fromisoformat(link["expires_at"]) - datetime.datetime.fromisoformat(link["created_at"])
    assert lasts == datetime.timedelta(hours=1)
    newer = made(zone, csr)
    assert newer["note"] is None
    listed = handovers(zone, csr, "GET").result
    assert [entry["id"] for entry in listed] == [newer["id"], link["id"]]
    shown = {name: value for name, value in link.items() if name != "url"}
    assert listed[1] == shown | {"opened_at": None, "used_at": None, "revoked_at": None}

    assert handovers(zone, csr, "DELETE", f"/{link['id']}").result == {"id": link["id"]}
    assert handovers(zone, csr, "GET").result[1]["revoked_at"] is not None
    status, _, page = fetch(link["url"])
    assert status == 410 and "This link has ended" in page
    assert fetch(newer["url"])[0] == 200


def test_what_is_wrong_with_a_request_for_a_link_is_named(zone):
    csr = active(zone)
    for body, code, pointer in [
        ({"expires_in": 3599}, 1495, "/expires_in"),
        ({"expires_in": 2592001}, 1495, "/expires_in"),
        ({"expires_in": "3600"}, 1400, "/expires_in"),
        ({"note": "x" * 501}, 1496, "/note"),
    ]:
        answer = handovers(zone, csr, "POST", body=body)
        assert (answer.status, codes(answer.envelope)) == (400, [code]), body
        assert answer.envelope["errors"][0]["source"] == {"pointer": pointer}
    gone = {"id": UNKNOWN}
    for answer, expected in [
        (handovers(zone, gone, "POST"), (404, [1419])),
        (handovers(zone, gone, "GET"), (404, [1419])),
        (handovers(zone, gone, "DELETE", f"/{UNKNOWN}"), (404, [1419])),
        (handovers(zone, csr, "DELETE", f"/{UNKNOWN}"), (404, [1498])),
        (handovers(zone, csr, "DELETE", "/x"), (400, [1497])),
    ]:
        assert (answer.status, codes(answer.envelope)) == expected


def test_the_page_shows_what_to_do_and_reaches_nothing_else(zone):
    csr = active(zone, sans=["www.acme-widgets.com", "shop.acme-widgets.com"])
    note = "Dear <b>IT</b> & Co: \"sign\" this."
    link = made(zone, csr, note=note)
    for url in [link["url"], link["url"] + "/csr"]:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30) as response:
            assert response.status == 200
    assert handovers(zone, csr, "GET").result[0]["opened_at"] is None, "a program that checks links opens none"
    status, headers, page = fetch(link["url"])
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "script" not in policy
    assert "<script" not in page and "<b>IT</b>" not in page and "&lt;b&gt;IT&lt;" in page
    for text in ["www.acme-widgets.com", "shop.acme-widgets.com", csr["csr"].splitlines()[1].replace("/", "&#x2f;"), '<html lang="en">']:
        assert text in page, text
    for other in ["/api/v4/zones", "/csr/csr", "/certificate"]:
        assert fetch(link["url"] + other)[0] == 404
    status, headers, file = fetch(link["url"] + "/csr")
    assert status == 200 and headers["Content-Disposition"] == 'attachment; filename="www.acme-widgets.com.csr"'
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert "default-src 'none'" in headers["Content-Security-Policy"] and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert file == csr["csr"]
    # Opened once, however often it was.
    assert audit(zone) == [("handover_create", "api"), ("handover_open", "handover")]
    refused = urllib.request.Request(link["url"], method="DELETE")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(refused, timeout=30)
    assert (error.value.code, error.value.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert handovers(zone, csr, "GET").result[0]["opened_at"] is not None


def der(pem: str) -> bytes:
    """The leaf alone."""
    return subprocess.run(["openssl", "x509", "-outform", "DER"], input=pem.encode(), capture_output=True, check=True).stdout


# What somebody brings: of a browser, of another page whose form has a text field alone, or of curl.
FORMS = {
    "text": lambda url, pem: bring(url, text=pem),
    "PEM": lambda url, pem: bring(url, file=pem.encode()),
    "DER": lambda url, pem: bring(url, file=der(pem)),
    "text around PEM that is not UTF-8": lambda url, pem: bring(url, file="friendlyName: Müller\n".encode("latin-1") + pem.encode()),
    "DER in the field of the text": lambda url, pem: post(url, {"certificate": der(pem)}),
    "text without a file": lambda url, pem: fetch(url, urllib.parse.urlencode({"certificate": pem}).encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_that_is_brought_is_stored_and_ends_the_link(zone, form):
    csr = active(zone)
    link = made(zone, csr)
    status, _, page = FORMS[form](link["url"], chain(csr))
    assert status == 201 and "The certificate is stored" in page
    (certificate,) = zone.get(csr["id"])["custom_certificate_ids"]
    assert Certificates(zone).get(certificate)["custom_csr_id"] == csr["id"]
    for url in [link["url"], link["url"] + "/csr"]:
        assert fetch(url)[0] == 410
    assert bring(link["url"], text=chain(csr))[0] == 410
    assert audit(zone) == [("handover_create", "api"), ("handover_use", "handover"), ("upload", "handover")]
    assert handovers(zone, csr, "GET").result[0]["used_at"] is not None


def test_a_certificate_that_clients_may_not_like_is_stored_and_the_page_says_what_they_may_not_like(zone):
    csr = active(zone)
    status, _, page = bring(made(zone, csr)["url"], text=ROOT.issue(csr["csr"], sans=["www.acme-widgets.com", "other.acme-widgets.com"]) + ROOT.pem)
    assert status == 201 and "The certificate is stored" in page and "nothing more to do" not in page
    assert "subject alternative names (SANs) are not those of the CSR" in page and "other.acme-widgets.com" in page
    # What was put right is no concern of theirs.
    status, _, page = bring(made(zone, csr)["url"], text=ROOT.pem + ROOT.issue(csr["csr"]))
    assert status == 201 and "nothing more to do" in page


def test_a_refused_certificate_says_why_and_leaves_the_link_open(zone):
    csr, other = active(zone), active(zone)
    link = made(zone, csr)
    for text, words in [
        ("", "certificate"),
        ("not a certificate", "certificate"),
        (chain(other), "private key"),
        (csr["csr"], "certificate"),
    ]:
        status, headers, page = bring(link["url"], text=text)
        assert status == 422, page
        assert 'role="alert"' in page and 'aria-invalid="true"' in page and words in page
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    key = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True, text=True).stdout
    status, _, page = bring(link["url"], text=key)
    assert status == 422 and "PRIVATE KEY" not in page and "exposed" in page
    assert fetch(link["url"], b"x=1", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 422
    status, _, page = bring(link["url"], text="x" * 70_000)
    assert status == 422 and "The text around the PEM blocks can be left out" in page
    # The text of 1429 names an ID, for which the page has no field; that of 1400 is about JSON.
    assert "the ID of" not in bring(link["url"], text=chain(other))[2]
    for data, headers in [(b"abc", {"Content-Type": "text/plain"}), (b"{}", {"Content-Type": "application/json"}), (b"--x", {"Content-Type": "multipart/form-data; boundary=x"})]:
        status, _, page = fetch(link["url"], data, headers)
        assert status == 422 and "Send it again from here" in page and "JSON" not in page
    form = urllib.parse.urlencode({"certificate": chain(csr)}).encode()
    status, _, page = fetch(link["url"], gzip.compress(form), {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"})
    assert status == 422 and "Content-Encoding" in page
    assert bring(link["url"], text=chain(csr))[0] == 201


def test_links_that_are_unknown_expired_or_of_a_deleted_custom_csr_end_at_the_same_page(zone):
    csr = active(zone)
    link = made(zone, csr)
    base, secret = link["url"].rsplit("/", 1)
    for unknown in [secret[:-1], secret + "A", "A" * 43, "%2e%2e", "x", f"{secret}/", f"{secret}/key", f"{secret}."]:
        status, _, page = fetch(f"{base}/{unknown}")
        assert status == 404 and "This link has ended" in page, unknown
        assert bring(f"{base}/{unknown}", text=chain(csr))[0] == 404
    expired = made(zone, csr)
    zone.service.sql(f"UPDATE handovers SET expires_at = created_at + 1 WHERE id = '{expired['id']}'")
    for answer in (fetch(expired["url"]), bring(expired["url"], text=chain(csr))):
        assert answer[0] == 410 and "This link has ended" in answer[2]
    assert zone.request("DELETE", f"/{csr['id']}").status == 200
    assert fetch(link["url"])[0] == 404


def test_an_address_that_tries_links_which_do_not_exist_is_held_up(new_csrd):
    csrd = new_csrd("--auth-failure-limit", "1").start()
    zone = csrd.tenant()
    link = made(zone, active(zone))
    base = link["url"].rsplit("/", 1)[0]
    # 50 at once, and one a second.
    assert any(fetch(f"{base}/{uuid.uuid4().hex}{'A' * 11}")[0] == 429 for _ in range(500))
    status, headers, text = fetch(link["url"])
    assert status == 429 and "Retry-After" in headers and "Too many requests" in text


def test_neither_the_log_nor_the_database_has_a_link(zone):
    csr = active(zone)
    link = made(zone, csr)
    secret = link["url"].rsplit("/", 1)[1]
    fetch(link["url"])
    for mistyped in ("/%68andover/", "//handover/", "/Handover/", "/api/v4/handover/"):
        fetch(link["url"].replace("/handover/", mistyped))
    bring(link["url"], text="x")
    fetch(link["url"] + "/csr")
    log = zone.service.log()
    assert "/handover/~" in log and secret not in log and secret[:20] not in log
    stored = str(zone.service.sql(f"SELECT * FROM handovers WHERE id = '{link['id']}'"))
    octets = base64.urlsafe_b64decode(secret + "=")
    assert link["id"] in stored and not any(form in stored for form in (secret, octets.hex(), repr(octets)[2:-1]))


def emulate(browser, width: int) -> None:
    """A screen of this width, and no script: the page needs none."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800})


def press(browser, *keys: str) -> None:
    """On a keyboard, wherever the focus is."""
    ActionChains(browser).send_keys(*keys).perform()


def accessible(browser) -> list[dict]:
    """What a screen reader knows of the page, in order: the role, name, description and value of each node, and what else is said of it."""
    browser.execute_cdp_cmd("Accessibility.enable", {})
    found = []
    for node in browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]:
        if not node["ignored"]:
            said = {name: node[name]["value"] for name in ("role", "name", "description", "value") if "value" in node.get(name, {})}
            said |= {entry["name"]: entry["value"].get("value") for entry in node.get("properties", [])}
            found.append(said)
    return found


def named(nodes: list[dict], *roles: str) -> list[str]:
    return [node.get("name", "") for node in nodes if node["role"] in roles]


def focus(browser, name: str, *, seconds: float = 30) -> dict:
    """What has the focus, as soon as that is the thing with this name."""

    def found(_) -> dict | None:
        focused = [node for node in accessible(browser) if node.get("focused") and node["role"] != "RootWebArea"]
        return next((node for node in focused if name in (node["role"], node.get("name")) or node.get("name", "").startswith(f"{name}:")), None)

    return WebDriverWait(browser, seconds).until(found, f"{name!r} does not get the focus")


def tab_to(browser, name: str) -> dict:
    """Moves the focus on by the keyboard, to the next thing; a browser that has not yet painted a new page hears no key."""
    for _ in range(3):
        press(browser, Keys.TAB)
        with suppress(TimeoutException):
            return focus(browser, name, seconds=10)
    return focus(browser, name)


def picture(browser, name: str) -> None:
    """Keeps a picture for the guide, where somebody asks for it."""
    if directory := os.environ.get("TEST_SCREENSHOTS"):
        size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
        Path(directory, f"hand-over-{name}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.parametrize(("width", "name"), [(375, "phone"), (1280, "desktop")])
def test_a_person_with_the_link_alone_succeeds_by_keyboard_in_a_browser_without_script(service, browser, width, name, tmp_path):  # noqa: F811
    zone = service.tenant()
    csr = active(zone, sans=["www.acme-widgets.com", "shop.acme-widgets.com"])
    link = made(zone, csr, note="Please have this signed by our company CA.")
    wait = WebDriverWait(browser, 30)
    emulate(browser, width)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(link["url"])
    assert "www.acme-widgets.com" in browser.title
    if name == "phone":
        picture(browser, name)
    # The CSR is downloaded.
    tab_to(browser, "Download www.acme-widgets.com.csr")
    press(browser, Keys.ENTER)
    file = tmp_path / "www.acme-widgets.com.csr"
    wait.until(lambda _: file.exists() and file.read_text() == csr["csr"])
    # Or it is copied.
    field = tab_to(browser, "Or copy it")
    assert field["readonly"] and field["value"].split() == csr["csr"].split()
    # A certificate for another key is refused: the focus is on the reasons, and the field has them too.
    tab_to(browser, "The file from the CA")
    tab_to(browser, "Or its text")
    press(browser, ROOT.issue(active(zone)["csr"]))
    tab_to(browser, "Hand the certificate over")
    press(browser, Keys.ENTER)
    wait.until(is_.title_contains("Not accepted"))
    alert = browser.find_element(By.CSS_SELECTOR, "[role=alert]")
    assert "public key" in alert.text and "the CSR of step 1" in alert.text
    focus(browser, "alert")
    (text,) = [node for node in accessible(browser) if node["role"] == "textbox" and node["name"] == "Or its text"]
    assert text["invalid"] == "true" and alert.text.splitlines()[1] in text["description"]
    if name == "desktop":
        picture(browser, name)
    # The right one is stored.
    tab_to(browser, "The file from the CA")
    tab_to(browser, "Or its text")
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    press(browser, chain(csr))
    tab_to(browser, "Hand the certificate over")
    press(browser, Keys.ENTER)
    wait.until(is_.title_contains("is stored"))
    assert len(zone.get(csr["id"])["custom_certificate_ids"]) == 1
    origin = link["url"].split("/handover")[0]
    assert all(url.startswith(origin) for url in requested(browser))


def test_a_screen_reader_finds_each_part_of_the_page_by_its_name_and_a_file_that_was_picked_counts(service, browser, tmp_path):  # noqa: F811
    zone = service.tenant()
    csr = active(zone)
    link = made(zone, csr, note="Dear IT")
    emulate(browser, 1280)
    browser.get(link["url"])
    nodes = accessible(browser)
    assert named(nodes, "heading") == [
        "Have a certificate made", "1. Take the certificate signing request (CSR)", "2. Have your CA sign it", "3. Bring the certificate here",
    ]  # fmt: skip
    assert named(nodes, "textbox") == ["Or copy it", "Or its text"] and named(nodes, "form") == ["3. Bring the certificate here"]
    assert "main" in [node["role"] for node in nodes] and named(nodes, "link") == ["Download www.acme-widgets.com.csr"]
    assert any(name.startswith("The file from the CA") for name in named(nodes, "button", "textbox")), named(nodes, "button")
    # A text that was refused stays, and the file that is picked then is what is meant.
    browser.find_element(By.ID, "certificate").send_keys("something else")
    browser.find_element(By.CSS_SELECTOR, "button").click()
    WebDriverWait(browser, 30).until(is_.title_contains("Not accepted"))
    assert browser.find_element(By.ID, "certificate").get_attribute("value").strip() == "something else"
    file = tmp_path / "www.crt"
    file.write_text(chain(csr))
    browser.find_element(By.ID, "file").send_keys(str(file))
    browser.find_element(By.CSS_SELECTOR, "button").click()
    WebDriverWait(browser, 30).until(is_.title_contains("is stored"))
    browser.get(link["url"])
    assert named(accessible(browser), "heading") == ["This link has ended"]


def test_nothing_is_cut_off_at_the_side_of_a_narrow_screen(service, browser):  # noqa: F811
    zone = service.tenant()
    label = "x" * 60
    long = f"{label}.{label}.{label}.acme-widgets.com"
    link = made(zone, active(zone, common_name="www.acme-widgets.com", sans=["www.acme-widgets.com", long]), note="y" * 500)
    for width in [320, 375, 1280]:
        emulate(browser, width)
        browser.get(link["url"])
        for title in ["Certificate for", "Not accepted"]:
            WebDriverWait(browser, 30).until(is_.title_contains(title))
            metrics = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})
            assert metrics["cssContentSize"]["width"] <= width, (width, title)
            if title == "Certificate for":
                browser.find_element(By.ID, "certificate").send_keys("z" * 300)
                browser.find_element(By.CSS_SELECTOR, "button").click()


def test_a_page_and_an_address_of_the_operators_own_are_used_and_a_page_that_lacks_something_is_refused(new_service, tmp_path):  # noqa: F811
    words = '{{ state }} {{ names }} {{ note }} {{ csr_url }} {{ post_url }} {{ errors }} <input type="file" name="file">'
    for name, text, reason in [
        ("lacks", words, "lacks the placeholders csr"),
        ("no_field", words.replace('name="file"', "") + "{{ csr }}", "its form lacks a field"),
        ("broken", words + "{{ csr }}{% if %}", "not a template"),
        ("misspelled", words + "{{ csr }}{{ sate }}", "not a template"),
        ("empty", "", "lacks the placeholders"),
    ]:
        (tmp_path / name).write_text(text)
        refused = subprocess.run(
            [binary(), "serve", "--data-dir", tmp_path / "data", "--listen", "127.0.0.1:0", "--handover-template", tmp_path / name],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
        assert refused.returncode == 2 and "--handover-template" in refused.stderr and reason in refused.stderr, refused
        assert not (tmp_path / "data").exists()
    own = tmp_path / "page.html"
    own.write_text(f"<h1>Acme</h1> {words} {{{{ csr }}}}")
    service = new_service("sqlite", "--handover-template", str(own), "--public-url", "https://csrd.acme.example/")
    zone = service.tenant()
    link = made(zone, active(zone))
    assert re.fullmatch(r"https://csrd\.acme\.example/handover/[A-Za-z0-9_-]{43}", link["url"])
    status, _, page = fetch(service.url + urllib.parse.urlsplit(link["url"]).path)
    assert status == 200 and page.startswith("<h1>Acme</h1> open") and "None" not in page
