"""``python -m tests.fuzz``: steps for as long as there is time, or one episode again.

python -m tests.fuzz --seconds 600                # episodes with seeds that count up
python -m tests.fuzz --steps 10000000 --jobs 8    # so many steps, by processes with seeds of their own
python -m tests.fuzz --seed 17 --steps 4000       # one episode, when it is no more than one takes
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import logging
import multiprocessing
import sys
import time
import warnings
from typing import Any

import torch

from unified_guards.guards.ir import Access, Test

from . import compiled, engine
from .mutations import ROWS

#: How many steps an episode takes: then there is another world with other guard sets.
STEPS, COMPILED_STEPS = 30_000, 1_500
#: Every so many episodes, the guard sets of functions that were compiled are there, too; then torch is asked each time.
COMPILED_EVERY = 8


def options(seed: int) -> dict[str, object]:
    """How the episode with this seed is made."""
    return {"compiled": compiled.frames, "sets": 2} if seed % COMPILED_EVERY == 0 else {}


def steps_of(seed: int) -> int:
    return COMPILED_STEPS if seed % COMPILED_EVERY == 0 else STEPS


def episode(
    seed: int, steps: int, until: float, make: engine.MakeChecker, total: engine.Statistics, shrinking: float = 30
) -> str | None:
    """Runs one episode; returns what to say of its failure, after `shrinking` seconds of looking for a shorter way."""
    found = engine.Statistics()
    made = engine.Episode(seed, make, found, **options(seed))  # type: ignore[arg-type]
    try:
        made.run(steps, until)
        return None
    except engine.Disagreement as failure:
        return report(made, seed, failure, make, shrinking)
    finally:
        made.close()
        total.add(found)


def report(
    made: engine.Episode, seed: int, failure: engine.Disagreement, make: engine.MakeChecker, shrinking: float
) -> str:
    """What happened, how to see it again, and the shortest way there that was found."""
    lines = [f"seed {seed}: {failure}", "", "the last actions:", *engine.told(made, made.log[-8:]), ""]
    lines += [
        "To repeat it, in the root of the repository:",
        "",
        f"python -m tests.fuzz --seed {seed} --steps {made.begun}",
        "",
    ]
    made.put_back()
    shorter = engine.shrink(seed, made.log, shrinking, make=make, **options(seed))
    if shorter is None:
        lines.append("The same actions in a fresh episode do not end in it: it depends on addresses or on the time.")
    else:
        again = engine.replay(seed, shorter, make=make, **options(seed))
        lines += ["The shortest way there that was found:", *engine.told(made, shorter), f"which ends in: {again}", ""]
        lines += ["As a program:", "", "from tests.fuzz import __main__ as fuzz", f"fuzz.again({seed}, {shorter})"]
    return "\n".join(lines)


def again(seed: int, actions: list[engine.Action]) -> None:
    """Takes the actions of a report; raises what they end in."""
    found = engine.replay(seed, actions, **options(seed))
    if found is not None:
        raise found


def summary(total: engine.Statistics) -> str:
    """What was covered."""
    rate = total.steps / total.seconds if total.seconds else 0
    lines = [
        f"{total.steps:,} steps, {rate:,.0f} a second; {total.checks:,} checks, "
        f"{100 * total.passes / max(total.checks, 1):.0f} % of them passed",
        f"torch's own tree was asked {total.asked_torch:,} times, "
        f"{100 * total.asked_torch / max(total.checks, 1):.1f} % of the checks; it had "
        f"{100 * total.in_torch / max(total.guards, 1):.0f} % of the guards; stricter than torch: "
        f"{dict(total.stricter) or 'never'}",
        f"{total.referenced:,} compared with the reference, {total.sprung:,} times user code changed something "
        f"during a check, {total.remade:,} guard sets made anew",
    ]
    missing = [test.name for test in Test if test.name not in total.tests]
    unused = [access.name for access in Access if access.name not in total.accesses]
    lines.append(f"tests in no guard set: {', '.join(missing) or 'none'}; steps: {', '.join(unused) or 'none'}")
    flipped = {kind for kinds in total.flips.values() for kind in kinds}
    lines.append(f"kinds of guards that some mutation made fail: {len(flipped)}")
    for name in ROWS:
        kinds = total.flips.get(name)
        most = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6)) if kinds else "nothing"
        lines.append(f"  {name}, {total.done[name]:,} times: {most}")
    return "\n".join(lines)


def run(
    seed: int,
    steps: int | None,
    seconds: float,
    make: engine.MakeChecker = engine.native,
    shrinking: float = 30,
    total: engine.Statistics | None = None,
) -> int:
    """Runs episodes until time is up, or until so many ``steps`` are taken when they are given. Returns an exit status.

    With ``total`` it counts there, and leaves the summary to the caller.
    """
    counted = total if total is not None else engine.Statistics()
    until = time.perf_counter() + seconds if steps is None else float("inf")
    print("seeds:", end="")  # before each, for the case that it ends the process
    while True:
        print(f" {seed}", end="", flush=True)
        most = steps_of(seed) if steps is None else min(steps - counted.steps, steps_of(seed))
        failure = episode(seed, most, until, make, counted, shrinking)
        if failure is not None:
            print(f"\n{failure}", flush=True)
            return 1
        seed += 1
        if time.perf_counter() >= until if steps is None else counted.steps >= steps:
            break
    print()
    if total is None:
        print(summary(counted), flush=True)
    return 0


#: How far apart the seeds of two processes begin.
APART = 1_000_000


def _job(seed: int, steps: int | None, seconds: float, to: Any) -> None:
    _prepare()
    counted = engine.Statistics()
    status = run(seed, steps, seconds, total=counted)
    to.send((status, counted))


def run_jobs(seed: int, steps: int | None, seconds: float, jobs: int) -> int:
    """Runs so many processes and sums up; one that fails, or ends otherwise, does not stop the others."""
    context = multiprocessing.get_context("spawn")
    started = []
    for at in range(jobs):
        ours, theirs = context.Pipe(duplex=False)
        part = None if steps is None else steps // jobs + (at < steps % jobs)
        # By its name: this module may be the program that was started.
        target = importlib.import_module("tests.fuzz.__main__")._job
        process = context.Process(target=target, args=(seed + at * APART, part, seconds, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    total, failed = engine.Statistics(), 0
    for process, ours in started:
        try:
            status, counted = ours.recv()
            total.add(counted)
        except EOFError:
            process.join()
            status = 1
            print(f"a process ended by itself, with {process.exitcode}; the last of its seeds is printed above")
        failed += status
        process.join()
    print(summary(total), flush=True)
    return int(failed > 0)


def _prepare() -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)  # fake tensors report what they cannot do, which is no news here
    torch.set_num_threads(1)
    # A collection, of which some changes need one, is to look at what an episode makes and not at all of torch.
    gc.collect()
    gc.freeze()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the first episode")
    parser.add_argument("--steps", type=int, help="how many steps to take in all, instead of --seconds")
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    given = parser.parse_args()
    _prepare()
    if given.jobs > 1:
        return run_jobs(given.seed, given.steps, given.seconds, given.jobs)
    return run(given.seed, given.steps, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
