"""A real browser, and pages to look at."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.report import report
from tests.report.folders import write_everything
from tests.running import lacks


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium without a window, driven by the DevTools protocol. For one file: Playwright's event loop counts as running in this thread until
    the browser is closed, and no other could run."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        lacks("needs Chromium (tools/install_chromium.sh installs Debian's)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # a container's root has no sandbox
        yield browser
        browser.close()


class Visit:
    """A page in the browser, with everything that it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, page: Path | str) -> Visit:
        self.page.goto(page if isinstance(page, str) else page.as_uri())
        return self

    def wait_until(self, expression: str) -> None:
        """Until a JavaScript expression is true. Playwright's own way runs text as code in the page, which the page's policy forbids."""
        deadline = time.monotonic() + 120
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"it did not come: {expression}"
            self.page.wait_for_timeout(50)


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Opens pages; each test's are closed after it."""
    contexts = []

    def opened(page: Path | str, width: int = 1280, height: int = 800, **settings: Any) -> Visit:
        context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
        context.set_default_timeout(120_000)
        contexts.append(context)
        return Visit(context.new_page()).open(page)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each. Read it, do not write into it."""
    return write_everything(tmp_path_factory.mktemp("report") / "runs")


@pytest.fixture(scope="session")
def page(everything: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `everything`."""
    return report(everything, out=tmp_path_factory.mktemp("page") / "report.html")
