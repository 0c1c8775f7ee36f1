"""One browser for all checks of the book, a local server over `_build/html`, and a network that ends there."""

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
from browser import DESKTOP, HTML, REMEDY, find, serve


@pytest.fixture(scope="session")
def site():
    if not (HTML / "index.html").is_file():
        pytest.fail("there is no built book in _build/html: run `make book`", pytrace=False)
    with serve(HTML) as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    path = find()
    if path is None:
        pytest.fail(REMEDY, pytrace=False)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A browser context whose requests beyond the local server are stopped, and everything wrong is written down."""

    def __init__(self, chromium, address: str, **options):
        self.address, self.faults = address, []
        self.scripts = options.get("java_script_enabled", True)  # without them Chromium reports each script as failed
        self.context = chromium.new_context(viewport=DESKTOP, **options)
        self.context.route("**/*", self._gate)
        self.context.on("page", self._watch)

    def _gate(self, route):
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.faults.append(f"request out: {url}")
            route.abort()

    def _watch(self, page):
        page.on("console", lambda m: m.type == "error" and self.faults.append(f"console: {m.text} {m.location}"))
        page.on("pageerror", lambda e: self.faults.append(f"exception: {e}"))
        page.on("requestfailed", self._failed)
        page.on("response", lambda r: r.status >= 400 and self.faults.append(f"{r.status}: {r.url}"))
        page.on("dialog", lambda d: (self.faults.append(f"dialog: {d.message}"), d.dismiss()))

    def _failed(self, request):
        if request.failure == "net::ERR_ABORTED":      # the page was left or closed while the browser still fetched
            return                                     # (a file that is missing or refused answers otherwise)
        if self.scripts or request.resource_type != "script":
            self.faults.append(f"failed: {request.url} {request.failure}")

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.goto(self.address + path)
        return page


@pytest.fixture
def watched(chromium, site):
    """`watched(**options)` gives a `Watched` context over the book; whatever went wrong in it fails the test."""
    made = []

    def make(address=site, **options) -> Watched:
        made.append(Watched(chromium, address, **options))
        return made[-1]

    yield make
    faults = [fault for one in made for fault in one.faults]
    for one in made:
        one.context.close()
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def shared(chromium, site):
    """One context for many pages, so that scripts are read from the network once."""
    one = Watched(chromium, site)
    yield one
    one.context.close()
