"""``python -m tests.fuzz``: steps for as long as there is time, or one episode again.

python -m tests.fuzz --seconds 600           # episodes with seeds that count up
python -m tests.fuzz --seed 17 --steps 4000  # one episode
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time

import torch

from unified_guards.ir import Access, Test

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
        lines.append(f"  {name}: {most}")
    return "\n".join(lines)


def run(
    seed: int, steps: int | None, seconds: float, make: engine.MakeChecker = engine.native, shrinking: float = 30
) -> int:
    """Runs episodes until time is up, or one of so many steps when ``steps`` is given. Returns an exit status."""
    total = engine.Statistics()
    until = time.perf_counter() + seconds if steps is None else float("inf")
    print("seeds:", end="")  # before each, for the case that it ends the process
    while True:
        print(f" {seed}", end="", flush=True)
        failure = episode(seed, steps or steps_of(seed), until, make, total, shrinking)
        if failure is not None:
            print(f"\n{failure}", flush=True)
            return 1
        seed += 1
        if steps is not None or time.perf_counter() >= until:
            break
    print()
    print(summary(total), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the first episode")
    parser.add_argument("--steps", type=int, help="one episode of so many steps")
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    given = parser.parse_args()
    faulthandler.enable()
    torch.set_num_threads(1)
    return run(given.seed, given.steps, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
