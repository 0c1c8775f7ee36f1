"""Many trainings at once, on the cores of this machine or on a Ray cluster; the results are those of `dynnotes train`.

A trial is one seed of one recipe, or of a task's static nets, on one thread. Training is deterministic, so it does not
matter where a trial runs, or how often it had to begin: one that finished stands in OUT/TRIAL.json and is not run
again; one whose process died is begun again, locally from its last whole epoch. Seeds are merged by their number, so
none counts twice. Clocks are read at the end, when no trial runs any more.
"""
from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path

import torch

from . import evidence, recipes
from .frontier import FAMILIES, static_nets
from .train import TrainingError, build

FORMAT = "dynnotes.trial/1"
STATIC = "static"
_PARSING = threading.Lock()                                # Python 3.11: SystemError where two threads parse at once
TRIES = 3                                                  # how often a process may die under one trial


@dataclass(frozen=True)
class Trial:
    """One seed of a paper's recipe for a task; with key "static", of the task's static nets."""
    key: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.key}.{self.task}.{self.seed}"

    @property
    def folder(self) -> str:
        """Where its epochs are kept: epochs of other code are never gone on from."""
        return f"{self.name}.{self.source_hash}"

    @property
    def source_hash(self) -> str:
        """Of the code that its result depends on."""
        with _PARSING:
            if self.key != STATIC:
                return evidence.hash_of(self.key, self.task)
            return evidence.source_hash(FAMILIES[self.task].module, recipes.tasks.module_of(self.task))


@dataclass(frozen=True)
class Options:
    """What all trials of a sweep share; plain values, so that they can travel."""
    epochs: int | None = None
    samples: int | None = None
    test_samples: int | None = None


def trials(keys: Iterable[str], seeds: Iterable[int], static: bool = True) -> list[Trial]:
    """Every recipe of every paper with every seed, and the static nets of their tasks; each once."""
    seeds = list(seeds)
    found = [Trial(key, recipe.task, seed) for key in keys for recipe in recipes.recipes_of(key) for seed in seeds]
    tasks = dict.fromkeys(t.task for t in found if t.task in FAMILIES)
    return list(dict.fromkeys([*found, *(Trial(STATIC, task, seed) for task in tasks for seed in seeds if static)]))


def run_trial(trial: Trial, options: Options, out: str | os.PathLike) -> dict:
    """Train and measure: {format, trial, options, source_hash, result, state}, all plain JSON.

    state: the weights of seed 0, base64 of a torch file. Goes on from the last whole epoch that `out` holds.
    """
    torch.set_num_threads(1)
    sizes, state = (options.samples, options.test_samples), None
    where = Path(out) / trial.folder
    if trial.key == STATIC:
        result = static_nets(trial.task, [trial.seed], sizes, file=where / "static.json", progress=False)
    else:
        (recipe,) = recipes.recipes_of(trial.key, trial.task)
        result, _, model = recipes.run_recipe(trial.key, recipe, seeds=[trial.seed], epochs=options.epochs, out=where,
                                              resume=True, sizes=sizes, static=False, timing=False, progress=False)
        if trial.seed == 0:
            kept = io.BytesIO()
            torch.save(model.state_dict(), kept)
            state = base64.b64encode(kept.getvalue()).decode()
    return {"format": FORMAT, "trial": asdict(trial), "options": asdict(options), "source_hash": trial.source_hash,
            "result": result, "state": state}


def finished(trial: Trial, options: Options, out: Path) -> dict | None:
    """What a trial left when it finished, if that is of this code and these options."""
    try:
        held = json.loads((out / f"{trial.name}.json").read_bytes())
    except (OSError, ValueError):
        return None
    now = {"format": FORMAT, "trial": asdict(trial), "options": asdict(options), "source_hash": trial.source_hash}
    return held if isinstance(held, dict) and all(held.get(k) == v for k, v in now.items()) else None


# Where trials run: each gives (trial, what it left) as they finish --------------------------------------------------

def on_local(todo: Sequence[Trial], options: Options, out: Path, workers: int) -> Iterator[tuple[Trial, dict]]:
    """A process per trial, `workers` at a time."""
    pool = ThreadPoolExecutor(workers)
    waiting = {pool.submit(_process, trial, options, out): trial for trial in todo}
    try:
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _process(trial: Trial, options: Options, out: Path) -> dict:
    ask = [sys.executable, "-m", "dynnotes.learn.sweep", json.dumps([asdict(trial), asdict(options), str(out)])]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(TRIES):
        done = subprocess.run(ask, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, check=False)
        if done.returncode == 0 and (held := finished(trial, options, out)):
            return held
        if done.returncode > 0:                            # it says itself what is wrong; a signal says nothing
            said = done.stderr.strip().splitlines() or ["no message"]
            raise TrainingError(f"{trial.name}: {said[-1]}")
    raise TrainingError(f"{trial.name}: its process was killed {TRIES} times; free some memory, or use fewer --workers")


def on_ray(todo: Sequence[Trial], options: Options, out: Path, workers: int,
           address: str | None = None) -> Iterator[tuple[Trial, dict]]:
    """A Ray task of one CPU per trial; without an address a cluster of this machine alone, with `workers` CPUs.

    Trials on other machines keep their epochs there; what they return is written here.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise TrainingError('--on ray needs Ray; install it with: pip install "dynnotes[cluster]"') from error
    size = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(**size, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except ConnectionError as error:
        raise TrainingError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=TRIES - 1)(run_trial)
        waiting = {remote.remote(trial, options, str(out)): trial for trial in todo}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            trial = waiting.pop(done)
            try:
                yield trial, ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise TrainingError(f"{trial.name}: {error.cause}") from None
            except ray.exceptions.RayError as error:
                raise TrainingError(f"{trial.name}: {str(error).splitlines()[0]}") from None
    finally:
        ray.shutdown()


def sweep(keys: Sequence[str], seeds: Iterable[int], *, on: str = "local", options: Options = Options(),
          out: str | os.PathLike = "runs/sweep", workers: int | None = None, address: str | None = None,
          static: bool = True, resume: bool = False, progress: bool | None = None) -> dict[Trial, dict]:
    """Run every trial that has not finished; {trial: what it left}. Raises TrainingError; what finished stays."""
    out, todo, held = Path(out).resolve(), trials(keys, seeds, static), {}
    out.mkdir(parents=True, exist_ok=True)
    if resume:
        held = {trial: found for trial in todo if (found := finished(trial, options, out))}
    todo = [trial for trial in todo if trial not in held]
    for trial in () if resume else todo:
        shutil.rmtree(out / trial.folder, ignore_errors=True)
    workers = workers or os.cpu_count() or 1
    from tqdm import tqdm

    running = on_local(todo, options, out, workers) if on == "local" else on_ray(todo, options, out, workers, address)
    with tqdm(total=len(todo) + len(held), initial=len(held), unit="trial", desc=f"on {on}",
              disable=progress if progress is None else not progress) as bar:
        for trial, found in running:
            evidence.write_json(found, out / f"{trial.name}.json")
            held[trial] = found
            bar.set_postfix_str(trial.name, refresh=False)
            bar.update()
    return held


def merge(held: Mapping[Trial, dict]) -> dict[tuple[str, str], tuple[dict, list[dict]]]:
    """{(paper, task): (its result over all seeds, the runs of the static nets beside it)}. Receipts are missing yet."""
    found: dict[tuple[str, str], list[dict]] = {}
    lines: dict[str, list[dict]] = {}
    for trial, left in sorted(held.items(), key=lambda item: item[0].seed):
        if trial.key == STATIC:
            lines.setdefault(trial.task, []).extend(left["result"]["runs"])
        else:
            found.setdefault((trial.key, trial.task), []).append(left["result"])
    whole = {}
    for (key, task), results in found.items():
        runs = sorted(lines.get(task, ()), key=lambda r: (r["macs"], r["seed"]))
        result = reduce(lambda before, result: recipes.merged(result, before), results)
        reference = {"file": f"static-{task}.json", "epochs": runs[0]["epochs"]} if runs else None
        whole[key, task] = (result | {"static": reference}, runs)
    return whole


def keep_static(content: dict, runs: list[dict]) -> None:
    """Write `static-TASK.json` with these runs; seeds that it held already, measured in the same way, stay."""
    path = evidence.folder() / f"static-{content['task']}.json"
    try:
        before = evidence.read_json(path, evidence.STATIC_FORMAT)
    except (FileNotFoundError, evidence.ResultError):
        before = {"runs": []}
    same = all(before.get(k) == content[k] for k in ("samples", "test_samples", "recipe", "source_hash"))
    ours = {(r["net"], r["seed"]) for r in runs}
    others = [r for r in before["runs"] if (r["net"], r["seed"]) not in ours] if same else []
    clock = {"clock": before["clock"]} if same and "clock" in before else {}
    evidence.write_json(content | clock | {"runs": sorted(others + runs, key=lambda r: (r["macs"], r["seed"]))}, path)


def trained_model(left: dict):
    """The model of a finished trial of seed 0."""
    trial = Trial(**left["trial"])
    (recipe,) = recipes.recipes_of(trial.key, trial.task)
    model = build(recipe.net, trial.seed)
    model.load_state_dict(torch.load(io.BytesIO(base64.b64decode(left["state"])), weights_only=True))
    return model.eval()


def sweep_command(args) -> int:
    """`dynnotes sweep`; returns the exit code, prints problems without a traceback."""
    seeds, quick = range(args.seeds or 3), args.quick
    options = Options(args.epochs or (1 if quick else None), *((512, 256) if quick else (None, None)))
    altered = options != Options()
    out = Path(args.out or "runs/sweep")
    try:
        held = sweep(args.keys, seeds, on=args.on, options=options, out=out, workers=args.workers,
                     address=args.address, static=not quick, resume=args.resume)
        results = []
        for (key, task), (result, static) in merge(held).items():
            if static and not altered:
                keep_static(held[Trial(STATIC, task, 0)]["result"], static)
            share = evidence.trained_share(result["runs"], result["full"])
            timed = recipes.timing_receipts(recipes.registry.sources()[key].load(), share)
            words = f"dynnotes sweep {key} --seeds {len(seeds)}" + " --quick" * quick
            words += f" --epochs {args.epochs}" if args.epochs else ""
            result |= {"receipts": [receipt.record() for receipt in timed], "command": words}
            model = trained_model(held[Trial(key, task, 0)])
            results.append(recipes.keep(evidence.check(result), model, out / f"{key}.{task}", altered))
            if not args.json:
                print(recipes.report(results[-1], static))
    except (TrainingError, evidence.ResultError, ValueError, OSError) as fault:
        print(f"dynnotes: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndynnotes: stopped; trials that finished are kept, the same command with --resume runs the others",
              file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(results, indent=1))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The process of one trial: `python -m dynnotes.learn.sweep '[trial, options, out]'`."""
    ask = argparse.ArgumentParser(prog="python -m dynnotes.learn.sweep", description=main.__doc__)
    ask.add_argument("what", help="JSON, as `on_local` writes it")
    trial, options, out = json.loads(ask.parse_args(argv).what)
    trial, options, out = Trial(**trial), Options(**options), Path(out)
    try:
        evidence.write_json(run_trial(trial, options, out), out / f"{trial.name}.json")
    except (TrainingError, evidence.ResultError, ValueError, OSError) as fault:
        print(str(fault).replace("\n", " "), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
