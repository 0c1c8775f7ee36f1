"""How soon the explorer of the book shows what was asked: milliseconds from the event to the painted frame.

    python -m benchmarks.explorer                  one line per kind of action, and all together
    python -m benchmarks.explorer --json           for a machine to read

Claim: each of 200 actions (words, nodes, letters of a search, sorts, languages, views, steps back) is seen within
100 ms, over the whole literature, in headless Chromium. Needs the built book (`make book`) and a quiet machine.
Exit code: 1 when one took longer.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

LIMIT = 100
ROOT = Path(__file__).parents[1]
WATCH = """() => {             // from the time stamp of an event to the task after the frame that shows its effect
  window.times = [];
  const paint = new MessageChannel();
  let since = 0;
  paint.port1.onmessage = () => window.times.push(performance.now() - since);
  for (const type of ['click', 'input', 'change', 'popstate']) {
    addEventListener(type, (e) => {
      if (e.target.closest?.('.dyn-views') && type !== 'change') return;      // a label's click is followed by a change
      since = e.timeStamp;
      requestAnimationFrame(() => paint.port2.postMessage(0));
    }, { capture: true });
  }
}"""


def actions(page):
    """200 times (kind of action, what does it)."""
    words = page.locator(".dyn-words button:visible")
    for i in range(60):
        yield "word", words.nth(i * 7 % words.count()).click
        if i % 6 == 5:
            yield "clear", page.locator(".dyn-reset").click
    for i in range(30):
        nodes = page.locator(".dyn-node:visible")
        yield "node", nodes.nth(i * 5 % nodes.count()).click
    if page.locator(".dyn-reset").count():
        yield "clear", page.locator(".dyn-reset").click
    page.locator("#dyn-q").focus()
    for letter in "dynamic gates skip convolution":
        yield "letter", lambda letter=letter: page.keyboard.press(letter)
    for _ in range(15):
        yield "letter", lambda: page.keyboard.press("Backspace")
    yield "clear", page.locator(".dyn-reset").click
    heads = page.locator(".dyn-papers thead button")
    for i in range(21):
        yield "sort", heads.nth(i // 2 % heads.count()).click
    for _ in range(10):
        yield "back", page.go_back
    for _ in range(10):
        yield "language", page.locator(".dyn-language").click
    for _ in range(6):
        for name in ("matrix", "tree"):
            yield "view", page.locator(f".dyn-views label:has([value={name}])").click


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(ROOT / "tests" / "book"))
    from browser import HTML, REMEDY, find, serve
    from playwright.sync_api import sync_playwright

    if not (HTML / "book" / "map.html").is_file():
        parser.error(f"{HTML}: no built book; make it with `make book`")
    if find() is None:
        parser.error(REMEDY)
    times: dict[str, list[float]] = {}
    with serve(HTML) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(address + "book/map.html")
        page.wait_for_selector("#dyn-explorer[data-ready]")
        papers = page.locator(".dyn-papers tr[data-key]").count()
        page.evaluate(WATCH)
        for done, (kind, act) in enumerate(actions(page), 1):
            act()
            page.wait_for_function("n => window.times.length >= n", arg=done)
            times.setdefault(kind, []).append(page.evaluate("window.times.at(-1)"))
        browser.close()
    times["all"] = [t for kind in times.values() for t in kind]
    found = {
        kind: {"actions": len(ts), "median": statistics.median(ts), "p95": sorted(ts)[int(0.95 * (len(ts) - 1))],
               "max": max(ts)}
        for kind, ts in times.items()
    }  # fmt: skip
    if args.json:
        print(json.dumps({"papers": papers, "milliseconds": found}, indent=1))
    else:
        print(f"{papers} papers; milliseconds from event to painted frame")
        for kind, row in found.items():
            print(f"  {kind:9} {row['actions']:4} actions  median {row['median']:6.1f}  95 % {row['p95']:6.1f}  "
                  f"max {row['max']:6.1f}")  # fmt: skip
    return int(found["all"]["max"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
