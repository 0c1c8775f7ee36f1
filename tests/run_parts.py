"""What `make book`, `make test` and `make check` run: parts, one after the other, with their minutes and a summary.

Every part runs even when an earlier one failed; the exit status says whether all passed. Standard library only.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOISE = "metadata.language_info metadata.widgets cell.metadata.execution"
STRIP = [BIN / "nbstripout", "--keep-id", "--extra-keys", NOISE]
IPYTHON = BUILD / "ipython"
ENV = {  # the kernel of .venv, and what runs when it starts
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "IPYTHONDIR": str(IPYTHON),
}


def run(*command, **env) -> bool:
    """Run a command in the root of the checkout; True when it succeeded."""
    startup = IPYTHON / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "cpu_torchvision.py", startup)
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **ENV, **env}).returncode == 0


def pytest(name: str, *args) -> bool:
    """Run pytest, leaving its counts in `_build/reports/NAME.xml` for the summary."""
    report = BUILD / "reports" / f"{name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    return run(sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *args)


def workers() -> list[str]:
    """Two or more processes where there are cores for them; each test process keeps torch to one thread."""
    return ["-n", str(min(4, os.cpu_count() or 1))] if (os.cpu_count() or 1) > 1 else []


def lint() -> bool:
    good = run(BIN / "ruff", "check", ".")
    good &= run(BIN / "lint-imports", "--no-logo")
    if NOTEBOOKS:
        clean = run(*STRIP, "--verify", *NOTEBOOKS)
        if not clean:
            print("notebooks carry outputs: `make strip` takes them out")
        good &= clean
    return good


def tests() -> bool:
    return pytest("tests", "tests", "--ignore=tests/book", *workers(), "--durations=8")


def fast() -> bool:
    return pytest("fast", "tests", "--ignore=tests/book", *workers(), "-m", "not slow and not browser")


def notebooks() -> bool:
    return pytest("notebooks", "--nbmake", "--nbmake-timeout=300", *NOTEBOOKS) if NOTEBOOKS else True


def browser() -> bool:
    return pytest("browser", "tests/book", *workers(), "--durations=5")


def chromium() -> bool:
    return run(sys.executable, "tests/book/browser.py")


def digest(*patterns: str) -> str:
    """One hash over the content of all files that match, and over the Python that runs them."""
    total = hashlib.sha256(sys.version.encode())
    files = {path for pattern in patterns for path in ROOT.glob(pattern)}
    for path in sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts):
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def book() -> bool:
    """Build from clean with warnings as errors, unless nothing changed since the last good build.

    A second build over pickled pages would forget the warnings of the first, so a build always starts clean; only what
    notebooks printed is kept, and only while neither they nor the package changed (jupyter-cache sees notebooks alone).
    """
    code = [f"{folder}/**/*" for folder in ("dynnotes", "notebooks", "results", "assets/traces", "bib")]
    executed = digest(*code, "constraints.txt", "pyproject.toml")
    whole = digest(*code, "constraints.txt", "pyproject.toml", "book/**/*", "assets/**/*", "_*.yml", "*.md")
    last, ran = BUILD / "book.key", BUILD / "notebooks.key"
    if last.is_file() and last.read_text() == whole and (HTML / "index.html").is_file():
        print(f"nothing changed: the book is in {HTML.relative_to(ROOT)} (`make clean` to build it anyway)")
        return True
    last.unlink(missing_ok=True)
    for old in (HTML, BUILD / ".doctrees", BUILD / "staged"):
        shutil.rmtree(old, ignore_errors=True)
    if not ran.is_file() or ran.read_text() != executed:
        shutil.rmtree(BUILD / ".jupyter_cache", ignore_errors=True)
    print(f"building the book; {len(NOTEBOOKS)} notebooks to run" if NOTEBOOKS else "building the book", flush=True)
    if not run(BIN / "jupyter-book", "build", ".", "-W", "-n", "--keep-going", "-q"):
        return False
    ran.write_text(executed)
    last.write_text(whole)
    return True


def counts() -> dict[str, int]:
    """passed, failed and skipped over all reports of this run."""
    total = {"passed": 0, "failed": 0, "skipped": 0, "xfailed": 0}
    for report in (BUILD / "reports").glob("*.xml"):
        for case in xml.parse(report).iter("testcase"):
            outcome = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                total["failed"] += 1
            elif outcome is not None:
                total["xfailed" if outcome.get("type") == "pytest.xfail" else "skipped"] += 1
            else:
                total["passed"] += 1
    return total


def main(goal: str) -> int:
    if goal == "strip":
        return 0 if not NOTEBOOKS or run(*STRIP, *NOTEBOOKS) else 1
    if goal == "book":
        begin = time.monotonic()
        good = book()
        print(f"{'Open ' + str(HTML / 'index.html') + ' or run `make serve`' if good else 'The book did not build'}"
              f" ({time.monotonic() - begin:.0f} s)")
        return 0 if good else 1
    plan = {"check": (lint, fast), "test": (chromium, lint, tests, notebooks, book, browser)}[goal]
    shutil.rmtree(BUILD / "reports", ignore_errors=True)
    done, begin = [], time.monotonic()
    for part in plan:
        print(f"\n==== {part.__name__} ====", flush=True)
        if part is browser and not all(good for name, good, _ in done if name in ("book", "chromium")):
            print("not run: it needs the book and a browser")
            done.append((part.__name__, False, 0.0))
            continue
        start = time.monotonic()
        good = part()
        done.append((part.__name__, good, time.monotonic() - start))
    print("\npart         result   minutes")
    for name, good, seconds in done:
        print(f"{name:<12} {'passed' if good else 'FAILED':<8} {seconds / 60:7.1f}")
    total = counts()
    others = [good for name, good, _ in done if name in ("chromium", "lint", "book")]  # each counts as one test
    total["passed"] += sum(others)
    total["failed"] += len(others) - sum(others)
    failed = [name for name, good, _ in done if not good]
    for name in failed:
        print(f"FAILED {name}")
    if failed and not total["failed"]:
        total["failed"] = len(failed)
    line = ", ".join(f"{n} {what}" for what, n in total.items() if n)
    print(f"==== {line} in {time.monotonic() - begin:.2f}s ====")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("book", "test", "check", "strip"):
        sys.exit(f"usage: {sys.argv[0]} book|test|check|strip")
    sys.exit(main(sys.argv[1]))
