"""The receipt of every implemented paper: MACs needed, claimed and executed, and what the clock says.

    python -m benchmarks.receipts                  every paper
    python -m benchmarks.receipts KEY... --json    some, for a machine to read
    python -m benchmarks.receipts --write          into results/KEY.json, in place of those measured while training

Claim: a sparse run saves time in proportion to the MACs that it skips, at batch 1 and 32, on the paper's `timing()`
net. Where results/KEY.json exists, the net's budget is turned until it skips as much as the trained net does; otherwise
it stays as `timing()` sets it. One thread, its own CPU time; a row whose control (dense over dense) leaves 0.95 to 1.05
is void. Exit code: 0, 1 when a row is void.
"""
from __future__ import annotations

import argparse
import json
import sys

from dynnotes import registry
from dynnotes.learn import evidence, recipes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("keys", nargs="*", metavar="KEY", help="BibTeX keys of implemented papers; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="put them into results/KEY.json")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds, 15 by default")
    args = parser.parse_args(argv)
    sources = registry.sources()
    if unknown := [key for key in args.keys if key not in sources]:
        parser.error(f"{unknown[0]} is not implemented; implemented: {', '.join(sources)}")
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
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


if __name__ == "__main__":
    sys.exit(main())
