"""Swagger UI in a real browser: it needs nothing from elsewhere, can authorize, keeps that over a reload, and sends requests."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ca import Authority
from harness import Tenant
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as is_
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-proxy-server",
    # No name resolves: whatever the page wanted from elsewhere would be missing.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1400,2400",
]
# Seconds to wait for what a page does. A loaded machine takes long.
PATIENCE = 60


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found, f"none of {names} is installed"
    return found


@contextmanager
def started(directory: Path):
    """A browser with a new profile in this directory."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "google-chrome", "chromium-browser")
    for flag in [*FLAGS, f"--user-data-dir={directory}/profile"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # With the driver's path given, selenium does not go looking for one on the network.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(tmp_path):
    with started(tmp_path) as driver:
        # Leaves the browser's own start page, and forgets what that wanted.
        driver.get("about:blank")
        driver.get_log("performance")
        yield driver


def requested(browser) -> list[str]:
    """The URL of everything that the page asked for over the network."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls += [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
    return [url for url in urls if urlsplit(url).scheme not in ("data", "blob", "about")]


def replace_text(browser, field, text: str) -> None:
    """Pastes in place of what stands there. The page draws itself anew with every key that is typed: a certificate would take minutes."""
    browser.execute_script("arguments[0].focus(); arguments[0].select(); document.execCommand('insertText', false, arguments[1])", field, text)


def clicker(browser, wait):
    """Clicks the first thing within another one that is shown, as soon as it is."""

    def click(where, selector: str) -> None:
        shown = lambda _: [found for found in where.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]  # noqa: E731
        element = wait.until(shown)[0]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    return click


def authorize(browser, wait, click, token: str) -> None:
    click(browser, ".btn.authorize")
    dialog = wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".dialog-ux .modal-ux")))
    dialog.find_element(By.CSS_SELECTOR, "input").send_keys(token)
    click(dialog, "button.authorize")
    click(dialog, "button.btn-done")


def open_docs(browser, wait, csrd) -> None:
    browser.get(f"{csrd.url}/docs")
    wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".opblock")))


def try_out(browser, wait, click, operation_id: str, parameters: dict[str, str] | None = None, body: dict | None = None) -> tuple[str, str]:
    """Sends a request of an operation, whose examples stay as they are but for these; returns the status and what is shown of the answer."""
    tag = operation_id.rsplit("-", 1)[0]
    operation = browser.find_element(By.CSS_SELECTOR, f"[id='operations-{tag}-{operation_id}']")
    click(operation, ".opblock-summary-control")
    click(operation, ".try-out__btn")
    for name, value in (parameters or {}).items():
        field = wait.until(lambda _, name=name: operation.find_element(By.CSS_SELECTOR, f"tr[data-param-name={name}] input"))
        replace_text(browser, field, value)
    if body is not None:
        field = wait.until(lambda _: operation.find_element(By.CSS_SELECTOR, "textarea.body-param__text"))
        replace_text(browser, field, json.dumps(body))
    click(operation, ".execute")
    answer = ".live-responses-table tbody"
    status = wait.until(lambda _: operation.find_element(By.CSS_SELECTOR, f"{answer} .response-col_status"))
    return status.text.split()[0], operation.find_element(By.CSS_SELECTOR, answer).text


def test_it_works_offline_its_examples_lead_from_a_create_to_an_upload_and_a_reload_keeps_the_token(new_csrd, browser):
    csrd = new_csrd().start()
    wait = WebDriverWait(browser, PATIENCE)
    click = clicker(browser, wait)
    demo = Tenant(csrd, "zone", "demo", csrd.token("--zone", "demo"))
    open_docs(browser, wait, csrd)
    document = csrd.client.get(f"{csrd.url}/openapi.json").json()
    assert len(browser.find_elements(By.CSS_SELECTOR, ".opblock")) == sum(len(methods) for methods in document["paths"].values())
    assert document["info"]["title"] in browser.find_element(By.CSS_SELECTOR, ".info .title").text

    authorize(browser, wait, click, demo.token)
    status, shown = try_out(browser, wait, click, "zone-custom-csrs-create")
    assert status == "201" and "BEGIN CERTIFICATE REQUEST" in shown, shown
    (csr,) = demo.page().result
    browser.refresh()
    wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".opblock")))
    status, shown = try_out(browser, wait, click, "zone-custom-csrs-get", {"custom_csr_id": csr["id"]})
    assert status == "200" and '"active"' in shown and csr["id"] in shown, shown
    upload = {"certificate": Authority().issue(csr["csr"]), "custom_csr_id": csr["id"]}
    status, shown = try_out(browser, wait, click, "zone-custom-certificates-create", body=upload)
    assert status == "201" and '"active"' in shown, shown
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    status, shown = try_out(browser, wait, click, "zone-custom-csrs-edit", {"custom_csr_id": csr["id"]}, {"name": 5})
    assert status == "400" and "1400" in shown and "/name must be a string" in shown, shown

    # On disk it would outlive the tab, and other tabs would find it.
    assert browser.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    browser.switch_to.new_window("tab")
    open_docs(browser, wait, csrd)
    status, shown = try_out(browser, wait, click, "zone-custom-csrs-list")
    assert status == "400" and "1402" in shown, shown
    urls = requested(browser)
    assert {urlsplit(url).path for url in urls} >= {"/docs", "/api/v4/zones/demo/custom_csrs", "/api/v4/zones/demo/custom_certificates"}
    assert [url for url in urls if not url.startswith(f"{csrd.url}/")] == []


def test_the_first_screen_says_how_to_begin_and_the_codes_have_a_page_of_their_own(service, browser):
    wait = WebDriverWait(browser, PATIENCE)
    browser.get(f"{service.url}/docs")
    first = wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".opblock")))
    assert browser.title == "csrd API"
    text = browser.find_element(By.CSS_SELECTOR, ".info").text
    assert "csrd token issue --zone demo" in text and "1405" not in text
    # The window's height: nobody scrolls to find an operation.
    assert first.location["y"] < 1000
    browser.get(browser.find_element(By.CSS_SELECTOR, ".info a[href$='/docs/codes']").get_attribute("href"))
    rows = {row.text.split()[0]: row.text for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")}
    assert rows["1405"] == "1405 400 country is missing. Country field is required. Check your input and try again." and {"1000", "7001", "2100"} <= set(rows)
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_in_the_page_points_elsewhere_for_what_it_loads(service):
    page = service.client.get(f"{service.url}/docs")
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
    for attribute in ("src=", "href="):
        for quote in "\"'":
            assert f"{attribute}{quote}http" not in page.text.split("<script", 1)[0]
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http:" not in policy and "https:" not in policy and "*" not in policy
