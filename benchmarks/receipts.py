"""The receipt of every implemented paper: MACs needed, claimed and executed, and what the clock says.

    python -m benchmarks.receipts                  every paper
    python -m benchmarks.receipts KEY... --json    some, for a machine to read
    python -m benchmarks.receipts --write          into results/KEY.json, in place of those measured while training
    python -m benchmarks.receipts --trained        milliseconds of the trained nets instead, at their budgets, beside
                                                   static nets; --write, too; --void: only rows that are void or missing

Claim: a sparse run saves time in proportion to the MACs that it skips, at batch 1 and 32, on the paper's `timing()`
net. Where results/KEY.json exists, the net's budget is turned until it skips as much as the trained net does; otherwise
it stays as `timing()` sets it. One thread, its own CPU time; a row whose control (dense over dense) leaves 0.95 to 1.05
is void. Exit code: 0, 1 when a row is void.

The trained nets are timed as `dynnotes.learn.clock` says, as ratios to a static net of their task; no claim is judged
by them. Without --write the static nets' own times are taken as they stand; with --write and no KEY they are measured
again, too.
"""
from __future__ import annotations

import argparse
import json
import sys

from dynnotes import registry
from dynnotes.learn import clock, evidence, recipes, shipped


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help="BibTeX keys of implemented papers; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="put them into results/KEY.json")
    parser.add_argument("--trained", action="store_true", help="time the trained nets, and the static ones beside them")
    parser.add_argument("--void", action="store_true", help="with --trained: only rows that are void or missing")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds, 15 by default")
    args = parser.parse_args(argv)
    sources = registry.sources()
    if unknown := [key for key in args.keys if key not in sources]:
        parser.error(f"{unknown[0]} is not implemented; implemented: {', '.join(sources)}")
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    if args.void and not args.trained:
        parser.error("--void is for --trained")
    if args.trained:
        try:
            return trained(args)
        except (evidence.ResultError, FileNotFoundError, shipped.CheckpointError) as fault:
            parser.error(str(fault))
    found = {}
    for key in args.keys or sources:
        path = evidence.folder() / f"{key}.json"
        try:
            result = evidence.load_result(path)
        except FileNotFoundError:
            result = None
            if args.write:
                parser.error(f"{path}: no such file; make it with `dynnotes train {key}`")
        except evidence.ResultError as fault:
            parser.error(str(fault))
        share = None if result is None else evidence.trained_share(result["runs"], result["full"])
        found[key] = recipes.timing_receipts(sources[key].load(), share, rounds=args.rounds)
        if not args.json:
            print(key, "" if share is None else f"at {share:.0%} of its MACs, as trained", sep="\n  " if share else "")
            print("\n".join(map(str, found[key])), flush=True)
        if args.write:
            evidence.write_json(evidence.check(result | {"receipts": [r.record() for r in found[key]]}), path)
    if args.json:
        print(json.dumps({key: [r.record() | {"realised": r.realised} for r in rows] for key, rows in found.items()},
                         indent=1))
    return int(any(r.void for rows in found.values() for r in rows))


def trained(args) -> int:
    """Time the shipped weights of every result, or of some papers, and with --write the static nets of their tasks."""
    found, static, words = {}, {}, "python -m benchmarks.receipts --trained --write"
    for path in sorted(evidence.folder().glob("static-*.json")) if args.write and not args.keys else ():
        task = path.stem.removeprefix("static-")
        if task not in clock.FAMILIES:
            continue
        content = evidence.read_json(path, evidence.STATIC_FORMAT)
        before, now = content.get("clock"), clock.reference_of(task, content)
        held = _held(before, args.void and before is not None and before["reference"] == now)
        static[task] = clock.time_static(task, rounds=args.rounds, command=words, held=held)
        print_rows(path.stem, static[task]["rows"], "net", args.json)
    for path in sorted(evidence.folder().glob("*.json")):
        if path.name.startswith("static-"):
            continue
        result = evidence.load_result(path)
        if args.keys and result["paper"] not in args.keys:
            continue
        if path.stem != result["paper"] or not result["static"]:
            print(f"{path.stem}: skipped, no weights of it are shipped" if result["static"] else
                  f"{path.stem}: skipped, it has no static nets to be timed beside", file=sys.stderr)
            continue
        task = result["task"]
        if task not in static:
            static[task] = clock.static_clock(task, rounds=args.rounds, write=args.write)
        before = result.get("clock")
        same = before is not None and before["reference"] == static[task]["reference"]
        taken = clock.time_trained(shipped.load_model(result["paper"]), result, static[task], rounds=args.rounds,
                                   held=_held(before, args.void and same), command=words)
        found[path.stem] = taken
        print_rows(path.stem, taken["rows"], "budget", args.json)
        if args.write:
            evidence.write_json(evidence.check(result | {"clock": taken}), path)
    if args.json:
        print(json.dumps(found, indent=1))
    return int(any(row["void"] for c in (*found.values(), *static.values()) for row in c["rows"]))


def _held(before, keep: bool) -> list[dict]:
    return [row for row in before["rows"] if not row["void"]] if before and keep else []


def print_rows(title: str, rows, of: str, quiet: bool) -> None:
    """Ratios to the reference, with their quartiles, and the noise."""
    if quiet:
        return
    print(title)
    for row in rows:
        ratios = ", ".join(f"{name} {row[name][0]:.3f} ({row[name][1]:.3f} to {row[name][2]:.3f})"
                           for name in ("sparse", "dense", "ratio") if name in row)
        print(f"  {'-' if row[of] is None else row[of]!s:<34} batch {row['batch']:<3} {ratios}; "
              f"reference {row['reference_ms']:.3f} ms, noise {row['noise']:.3f}{', void' * row['void']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
