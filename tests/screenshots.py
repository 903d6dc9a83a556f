"""Takes the pictures of Swagger UI in docs/: python tests/screenshots.py"""

import tempfile
from pathlib import Path

from harness import ROOT, Csrd
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from test_swagger_ui import PATIENCE, authorize, clicker, open_docs, started, try_out

with tempfile.TemporaryDirectory() as name:
    csrd = Csrd(Path(name, "csrd")).start()
    try:
        with started(Path(name)) as browser:
            wait = WebDriverWait(browser, PATIENCE)
            click = clicker(browser, wait)
            browser.set_window_size(1200, 900)
            open_docs(browser, wait, csrd)
            browser.save_screenshot(ROOT / "docs/swagger-ui.png")
            authorize(browser, wait, click, csrd.token("--zone", "demo"))
            status, shown = try_out(browser, wait, click, "zone-custom-csrs-create")
            assert status == "201", shown
            answer = browser.find_element(By.CSS_SELECTOR, ".live-responses-table")
            browser.execute_script("arguments[0].scrollIntoView()", answer)
            browser.save_screenshot(ROOT / "docs/swagger-ui-answer.png")
    finally:
        csrd.close()
