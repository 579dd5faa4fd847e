"""The report in a real headless browser: nothing is fetched, nothing runs, everything is shown, light and dark.

The browser is Playwright's own, or the Chromium that `DFAD_SEG_CHROMIUM` names or that lies in the PATH.
"""

import os
import shutil

import pytest
from report_samples import CLASSES, make_run

from dfad_seg.report import write_report

ARGUMENTS = ["--no-sandbox", "--disable-gpu"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the package playwright: pip install '.[browser]'"
    )
    path = os.environ.get("DFAD_SEG_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None
    )
    with playwright.sync_playwright() as driver:
        if path is None and not os.path.exists(driver.chromium.executable_path):
            pytest.skip("no browser: run `playwright install chromium`, or name one in DFAD_SEG_CHROMIUM")
        # A stripped-down Chromium, such as those packed for servers, runs in one process only.
        extra = os.environ.get("DFAD_SEG_CHROMIUM_ARGS", "").split()
        started = driver.chromium.launch(executable_path=path, args=[*ARGUMENTS, *extra])
        yield started
        started.close()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_report_in_a_browser(browser, tmp_path, mode, width):
    page_file = write_report(make_run(tmp_path / "run"))
    requests, faults = [], []
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=mode)
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(page_file.as_uri())

    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert faults == []
    # All pictures are decoded, and nothing is wider than the screen.
    assert page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)") == [60, 60, 60]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_role("rowheader", name=CLASSES[1]).count() == 1
    assert page.locator("svg polyline").count() == 7
    # Each chart's text and lines lie inside of it.
    outside = page.evaluate(
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text, polyline')].map(e => e.getBoundingClientRect()).filter(
                b => b.left < frame.left - 1 || b.right > frame.right + 1 || b.bottom > frame.bottom + 1);
        }).length"""
    )
    assert outside == 0
    page_colour, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (brightness(page_colour) > brightness(ink)) is (mode == "light")
    assert abs(brightness(page_colour) - brightness(ink)) > 150
    page.screenshot(path=tmp_path / "shot.png", full_page=True)
    assert (tmp_path / "shot.png").stat().st_size > 10_000


def brightness(colour):
    red, green, blue = (float(part) for part in colour[4:-1].split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
