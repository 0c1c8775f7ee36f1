"""Finds a Chromium for the checks of the book, or installs one: `python tests/book/browser.py` prints which it is.

In this order: $DYNNOTES_CHROMIUM, an installed Chromium or Chrome, Playwright's own, `apt-get install chromium` where
we are root, `playwright install chromium`. Without any of them the checks fail and say what to do: never a skip.
"""

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HTML = Path(os.environ.get("DYNNOTES_BOOK") or ROOT / "_build" / "html").resolve()  # or another built copy
DESKTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
REMEDY = (
    "no Chromium for the checks of the book. Install one (Debian, Ubuntu: apt-get install chromium), "
    "or run `.venv/bin/playwright install --with-deps chromium`, or set DYNNOTES_CHROMIUM to its path."
)


def find() -> str | None:
    """Path of a browser that is already here."""
    named = os.environ.get("DYNNOTES_CHROMIUM")
    if named:
        return shutil.which(named)
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or _own()


def _own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        path = play.chromium.executable_path
    return path if Path(path).is_file() else None


def install() -> str | None:
    """Try to get one: the distribution's where we are root, Playwright's otherwise."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-q"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"], **quiet)
    if not find():
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"])
    return find()


@contextlib.contextmanager
def serve(folder: Path):
    """The address of a local server over `folder`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


if __name__ == "__main__":
    browser = find() or (None if os.environ.get("DYNNOTES_CHROMIUM") else install())
    if browser is None:
        sys.exit(REMEDY)
    print(f"browser: {browser}")
