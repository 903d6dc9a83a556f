"""Swagger UI in a real browser: it needs nothing from elsewhere, can authorize, and sends requests."""

import json
import shutil
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
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


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found, f"none of {names} is installed"
    return found


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "google-chrome", "chromium-browser")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path}/profile"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # With the driver's path given, selenium does not go looking for one on the network.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    # Leaves the browser's own start page, and forgets what that wanted.
    driver.get("about:blank")
    driver.get_log("performance")
    yield driver
    driver.quit()


def requested(browser) -> list[str]:
    """The URL of everything that the page asked for over the network."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    urls += [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
    return [url for url in urls if urlsplit(url).scheme not in ("data", "blob", "about")]


def replace_text(field, text: str) -> None:
    """In place of the example that stands there."""
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text)


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


def test_the_example_of_a_create_works_as_it_stands(new_csrd, browser):
    csrd = new_csrd().start()
    wait = WebDriverWait(browser, 30)
    click = clicker(browser, wait)
    browser.get(f"{csrd.url}/docs")
    wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".opblock")))
    authorize(browser, wait, click, csrd.token("--zone", "demo"))
    operation = browser.find_element(By.CSS_SELECTOR, "[id='operations-zone-custom-csrs-zone-custom-csrs-create']")
    click(operation, ".opblock-summary-control")
    click(operation, ".try-out__btn")
    click(operation, ".execute")
    status = wait.until(lambda _: operation.find_element(By.CSS_SELECTOR, ".live-responses-table tbody .response-col_status"))
    assert status.text.split()[0] == "201", operation.text
    assert "BEGIN CERTIFICATE REQUEST" in operation.find_element(By.CSS_SELECTOR, ".live-responses-table tbody").text


def test_swagger_ui_works_offline_authorizes_and_sends_a_request(service, browser):
    zone = service.tenant("zone")
    csr_id = zone.create(name="seen in the browser")["id"]
    wait = WebDriverWait(browser, 30)

    click = clicker(browser, wait)
    browser.get(f"{service.url}/docs")
    wait.until(is_.visibility_of_element_located((By.CSS_SELECTOR, ".opblock")))
    operations = browser.find_elements(By.CSS_SELECTOR, ".opblock")
    document = service.client.get(f"{service.url}/openapi.json").json()
    assert len(operations) == sum(len(methods) for methods in document["paths"].values())
    assert document["info"]["title"] in browser.find_element(By.CSS_SELECTOR, ".info .title").text

    authorize(browser, wait, click, zone.token)

    def is_zone_list(operation) -> bool:
        path = operation.find_element(By.CSS_SELECTOR, ".opblock-summary-path").get_attribute("data-path")
        return "opblock-get" in operation.get_attribute("class") and path == "/zones/{zone_id}/custom_csrs"

    (operation,) = [operation for operation in operations if is_zone_list(operation)]
    click(operation, ".opblock-summary-control")
    click(operation, ".try-out__btn")
    field = wait.until(lambda _: operation.find_element(By.CSS_SELECTOR, "tr[data-param-name=zone_id] input"))
    replace_text(field, zone.id)
    click(operation, ".execute")
    status = wait.until(lambda _: operation.find_element(By.CSS_SELECTOR, ".live-responses-table tbody .response-col_status"))
    assert status.text.split()[0] == "200"
    shown = operation.find_element(By.CSS_SELECTOR, ".live-responses-table tbody .response-col_description").text
    assert csr_id in shown and "seen in the browser" in shown

    urls = requested(browser)
    assert any(url.startswith(f"{service.url}/api/v4/zones/{zone.id}/custom_csrs") for url in urls)
    assert f"{service.url}/docs" in urls
    assert [url for url in urls if not url.startswith(f"{service.url}/")] == []
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_first_screen_says_how_to_begin_and_the_codes_have_a_page_of_their_own(service, browser):
    wait = WebDriverWait(browser, 30)
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
