"""The knowledge base at scale: reading libraries, asking them, starting from cold, and guessing facets.

    python -m benchmarks.knowledge                  generated libraries of 1k, 10k and 100k entries (about ten minutes)
    python -m benchmarks.knowledge --quick          1k only, seconds
    python -m benchmarks.knowledge --json FILE      the same for a machine to read

Claims: 100,000 entries are imported in at most 10 s and 600 MB, matching and the written index included, at least twice
as fast as pybtex and 20 times as fast as bibtexparser 1.x parse them; an embedded index answers in at most 20 ms
(p99); `dynnotes find` answers from cold in at most 60 ms. Each reading runs in a process of its own; candidates take
turns, medians count, and the first candidate runs twice per round as its own control: a size whose control leaves
0.90 to 1.10 is void. bibtexparser 1.x gets an environment of its own in _build, where pip can get it, and reads up to
10k entries. Seconds are wall clock, with the processor's own beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from itertools import accumulate
from pathlib import Path

import dynnotes
from dynnotes.knowledge import propose
from dynnotes.knowledge.latex import plain

ROOT = Path(__file__).resolve().parents[1]
OLD = ROOT / "_build" / "bibtexparser1"
SIZES = (1_000, 10_000, 100_000)
READERS = {  # what a process runs on the library argv[1]
    "dynnotes import": "import dynnotes; print(len(dynnotes.load().library(sys.argv[1])))",
    "dynnotes parse": "from dynnotes.knowledge.bibtex import Source\n"
    "print(sum(1 for e in Source(open(sys.argv[1], 'rb').read(), '').entries()))",
    "pybtex": "from pybtex.database import parse_file; print(len(parse_file(sys.argv[1]).entries))",
    "bibtexparser 1": "import bibtexparser; print(len(bibtexparser.load(open(sys.argv[1])).entries))",
}
WRAP = """import json, re, sys, time
wall, cpu = time.perf_counter(), time.process_time()
{code}
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu,
                  int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024]))"""


def write_library(path: Path, size: int, seed: int = 0) -> None:
    """A .bib file of `size` entries: words as frequent as in titles, four authors, an accent in some, an abstract in a
    tenth, and one entry in a hundred a paper of this literature, as exported by another program."""
    kb, r = dynnotes.load(), random.Random(seed)
    words = sorted({w for p in kb.entries for w in plain(p.title).split() if w.isalpha()})
    syllables = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "is", "or", "ul")]
    made = sorted({"".join(r.choices(syllables, k=r.choice([2, 3, 3, 4]))) for _ in range(12_000)})
    r.shuffle(made)
    words = made[:200] + r.sample(words + made[200:], len(words) + len(made) - 200)  # ours are no common words
    weights = list(accumulate(1 / (i + 3) for i in range(len(words))))
    text = lambda k: " ".join(r.choices(words, cum_weights=weights, k=k))
    last = [w.title() for w in r.sample(words, 3000)]
    papers = [p for p in kb.entries if p.doi or p.eprint]
    with path.open("w", encoding="utf-8") as file:
        for i in range(size):
            title, more = text(9).capitalize(), f"doi = {{10.5555/{seed}.{i}}}"
            if i % 100 == 50 and i < 100 * len(papers):
                p = papers[i // 100]
                title, more = p.title, f"doi = {{{p.doi}}}" if p.doi else f"eprint = {{{p.eprint}}}"
            accent = "{\\'e}" if r.random() < 0.4 else ""
            others = " and ".join(f"{r.choice(last)}, {r.choice(last)}" for _ in range(3))
            names = f"{r.choice(last)}{accent}, A. and {others}"
            abstract = f"  abstract = {{{text(120)}}},\n" if i % 10 == 0 else ""
            file.write(
                f"@article{{key{i},\n  title = {{{title}}},\n  author = {{{names}}},\n  journal = {{Journal of "
                f"{text(2)}}},\n  year = {{{1990 + i % 36}}},\n  volume = {{{i % 90}}},\n  pages = {{{i}--{i + 9}}},\n"
                f"{abstract}  url = {{https://example.org/{i}}},\n  {more}\n}}\n\n"
            )


def old_python() -> tuple[str, str]:
    """(interpreter that has bibtexparser 1.x, "") or ("", why there is none)."""
    python = OLD / "bin" / "python"
    if not python.exists():
        venv.create(OLD, with_pip=True)
    have = subprocess.run([python, "-c", "import bibtexparser"], capture_output=True).returncode == 0
    if not have:
        ask = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "bibtexparser<2"]
        done = subprocess.run(ask, capture_output=True, text=True)
        if done.returncode:
            return "", "pip could not install it"
    return str(python), ""


def _compiled(folder: Path) -> dict[str, str]:
    """An environment in which modules are compiled once, as those of an installed package are."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return env | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def read_once(python: str, code: str, path: Path) -> tuple[list[float], int]:
    """([wall s, CPU s, MB], entries) of a reader in a process of its own, without a cache from before."""
    with tempfile.TemporaryDirectory() as cache:
        index = Path(os.environ["DYNNOTES_CACHE"])
        for file in index.glob("index-*"):  # our own literature is there already, as for anyone's second command
            (Path(cache) / file.name).write_bytes(file.read_bytes())
        run = [python, "-c", WRAP.format(code=code), path]
        env = {**_compiled(path.parent), "DYNNOTES_CACHE": cache}
        done = subprocess.run(run, capture_output=True, text=True, env=env, cwd=ROOT, check=True)
    count, figures = done.stdout.split("\n")[:2]
    return json.loads(figures), int(count)


def reading(path: Path, size: int, rounds: int, old: str) -> list[dict]:
    """A row per reader; the first reader's second run is the control."""
    takes_part = {n: c for n, c in READERS.items() if n != "bibtexparser 1" or (old and size <= 10_000)}
    runs: dict[str, list] = {name: [] for name in [*takes_part, "control"]}
    for turn in range(rounds + (size < 100_000)):
        for name in runs:
            code = READERS["dynnotes import"] if name == "control" else takes_part[name]
            figures, count = read_once(old if name == "bibtexparser 1" else sys.executable, code, path)
            assert count == size, f"{name} read {count} of {size} entries"
            if turn or size == 100_000:  # a first round fills caches, which would tell in the short ones
                runs[name].append(figures)
    first = statistics.median(f[0] for f in runs["dynnotes import"])
    rows = []
    for name, figures in runs.items():
        wall = [f[0] for f in figures]
        rows.append({"entries": size, "reader": name, "seconds": statistics.median(wall), "least": min(wall),
                     "most": max(wall), "cpu": statistics.median(f[1] for f in figures),
                     "mb": max(f[2] for f in figures), "times": statistics.median(wall) / first})  # fmt: skip
    return rows


def asking(path: Path, size: int, count: int) -> list[dict]:
    """Milliseconds per question to a library whose index is there: median, 99th percentile, most."""
    library, r = dynnotes.load().library(path), random.Random(1)
    rows = list(library.rows())
    titles = [[w for w in row.title.split() if w.isalnum()] for row in r.choices(rows, k=count)]
    common = max({w.lower() for t in titles for w in t}, key=lambda w: sum(w in t for t in titles))
    ask = {
        "two words of a title": lambda i: library.search(" ".join(r.sample(titles[i], min(2, len(titles[i]))))),
        "a whole title": lambda i: library.search(" ".join(titles[i])),
        "an unfinished word": lambda i: library.search(titles[i][0][: r.randint(2, 6)]),
        "the commonest word": lambda i: library.search(common),
        "an author": lambda i: library.search(r.choice(rows).authors.split(",")[0]),
        "facets and years": lambda i: library.find(decision=["gating", "-policy"], unit=["layer", "token"], since=2015),
    }
    found = []
    for name, question in ask.items():
        question(0)
        spent = []
        for i in range(count):
            start = time.perf_counter()
            question(i)
            spent.append(1e3 * (time.perf_counter() - start))
        cut = statistics.quantiles(spent, n=100)
        found.append({"entries": size, "question": name, "p50": cut[49], "p99": cut[98], "most": max(spent)})
    return found


def starting(library: Path, rounds: int) -> list[dict]:
    """Milliseconds from the command to its answer, processes and all."""
    python = [sys.executable]
    runs = {
        "interpreter alone": [*python, "-c", "pass"],
        "find --decision gating": [*python, "-m", "dynnotes", "find", "--decision", "gating"],
        "control: the same": [*python, "-m", "dynnotes", "find", "--decision", "gating"],
        "show ConvNet-AIG": [*python, "-m", "dynnotes", "show", "ConvNet-AIG"],
        f"search --in {library.name}": [*python, "-m", "dynnotes", "search", "--in", str(library), "graph"],
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    env = _compiled(library.parent)
    for turn in range(rounds + 1):
        for name, command in runs.items():
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, cwd=ROOT, check=False, env=env)
            if turn:  # the first round fills caches
                spent[name].append(1e3 * (time.perf_counter() - start))
    return [{"command": n, "median": statistics.median(s), "least": min(s), "most": max(s)} for n, s in spent.items()]


def guessing() -> list[dict]:
    """How often facets guessed from the titles of our own papers agree with what people found by reading them."""
    kb = dynnotes.load()
    papers = [p for p in kb if p.kind in ("method", "system")]
    right: dict[str, list[bool]] = {}
    spoke = 0
    for p in papers:
        found = propose.proposals({"title": p.title})
        spoke += bool(found)
        for facet, word, _ in found:
            has = p.within(word) if facet == "taxon" else f"{facet}:{word}" in p.tags
            right.setdefault(facet, []).append(has)
    rows = [{"facet": "any", "titles": len(papers), "guessed": spoke, "right": None}]
    return rows + [{"facet": f, "titles": len(papers), "guessed": len(v), "right": sum(v)} for f, v in right.items()]


def _print(found: dict) -> None:
    machine = found["machine"]
    print(f"{machine['cpus']} CPUs, Python {machine['python']}, {machine['rounds']} rounds\n")
    print("Reading (import = parsing, matching, and writing the index with full text; the others parse only)")
    print(f"{'entries':>8}  {'reader':16} {'s':>7} {'least':>7} {'most':>7} {'CPU s':>7} {'MB':>6} {'times':>6}")
    for row in found["reading"]:
        print(f"{row['entries']:8,}  {row['reader']:16} {row['seconds']:7.2f} {row['least']:7.2f} {row['most']:7.2f} "
              f"{row['cpu']:7.2f} {row['mb']:6.0f} {row['times']:6.2f}")  # fmt: skip
    for note in found["notes"]:
        print(note)
    print(f"\nAsking\n{'entries':>8}  {'question':22} {'p50 ms':>7} {'p99 ms':>7} {'most':>7}")
    for row in found["asking"]:
        print(f"{row['entries']:8,}  {row['question']:22} {row['p50']:7.2f} {row['p99']:7.2f} {row['most']:7.2f}")
    print(f"\nStarting\n{'command':34} {'median ms':>9} {'least':>7} {'most':>7}")
    for row in found["starting"]:
        print(f"{row['command']:34} {row['median']:9.1f} {row['least']:7.1f} {row['most']:7.1f}")
    print(f"\nGuessing facets from titles\n{'facet':10} {'titles':>6} {'guessed':>8} {'right':>6}")
    for row in found["guessing"]:
        right = "" if row["right"] is None else f"{row['right'] / row['guessed']:6.0%}"
        print(f"{row['facet']:10} {row['titles']:6} {row['guessed']:8} {right}")


def main(argv: list[str] | None = None) -> int:
    ask = argparse.ArgumentParser(prog="python -m benchmarks.knowledge", description=__doc__.partition("\n")[0])
    ask.add_argument("--quick", action="store_true", help="1k entries only")
    ask.add_argument("--rounds", type=int, default=3, metavar="N", help="3 by default")
    ask.add_argument("--json", metavar="FILE", help="write the figures there")
    args = ask.parse_args(argv)
    found: dict = {"machine": {"cpus": os.cpu_count(), "python": sys.version.split()[0], "rounds": args.rounds},
                   "reading": [], "asking": [], "notes": []}  # fmt: skip
    old, why = old_python()
    if why:
        found["notes"].append(f"bibtexparser 1: left out, {why}")
    with tempfile.TemporaryDirectory() as name:
        os.environ["DYNNOTES_CACHE"] = str(Path(name) / "cache")
        for size in SIZES[:1] if args.quick else SIZES:
            path = Path(name) / f"library{size // 1000}k.bib"
            write_library(path, size)
            os.utime(path, (1_600_000_000, 1_600_000_000))  # settled: its index counts from the first reading
            rows = reading(path, size, args.rounds, old)
            control = next(row["times"] for row in rows if row["reader"] == "control")
            void = "" if 0.9 <= control <= 1.1 else ": VOID, the machine was not quiet"
            megabytes = path.stat().st_size / 1e6
            found["notes"].append(f"{size:,} entries, {megabytes:.1f} MB: control {control:.2f}{void}")
            found["reading"] += rows
            found["asking"] += asking(path, size, 300)
        found["starting"] = starting(path, 10 * args.rounds)
    found["guessing"] = guessing()
    _print(found)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any("VOID" in note for note in found["notes"]))


if __name__ == "__main__":
    sys.exit(main())
