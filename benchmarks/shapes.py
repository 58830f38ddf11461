"""What shape guards cost: torch's Python function, torch's gcc-built one, and native code.

    python -m benchmarks.shapes [--rounds 5]

*50 inputs* compiles the workload `dynamic_50` in three ways in one process and times them in turn. What shape guards
add to a check is, for torch, a call of its Python function; for the others, the check less a check without them.

*Many guards* lifts, simplifies and lowers as many as a large model has, of the kinds that torch writes: ranges,
equalities, divisibility, sums and products.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import timeit
import types
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native
from torch._dynamo.source import LocalSource, TensorProperty, TensorPropertySource
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

import unified_guards
from benchmarks.workloads import WORKLOADS
from unified_guards.bench.probe import Build, BuildProbe
from unified_guards.bench.runner import environment, markdown
from unified_guards.dynamo.lift import lift
from unified_guards.dynamo.provenance import Origins
from unified_guards.dynamo.tap import LAMBDA_PARTS, recording
from unified_guards.guards.ir import GuardSet, Test
from unified_guards.lower.rows import Program, lower, make_checker
from unified_guards.simplify.driver import simplify

COUNTS = (500, 1_000, 2_000, 5_000)
GUARDS_A_SYMBOL = 10


def timed(call: Callable[[], Any]) -> float:
    """Microseconds of one call, hot."""
    timer = timeit.Timer(call)
    number = max(1, timer.autorange()[0] // 4)
    return min(timer.repeat(5, number)) / number * 1e6


def without_shapes(guard_set: GuardSet) -> GuardSet:
    return GuardSet(entry for entry in guard_set.entries() if entry[0].test is not Test.EXPRESSION)


# -- 50 inputs ---------------------------------------------------------------------------------------------------------


#: Compiled programs live as long as their models.
KEPT: list[Any] = []


def _fresh(build: Callable[[], Any]) -> Callable[[], Any]:
    """The same workload, whose functions have code, and so cache entries, of their own."""
    code = build.__code__
    consts = tuple(c.replace() if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return types.FunctionType(code.replace(co_consts=consts), build.__globals__, build.__name__)


def _compiled(name: str, *, unified: bool = False, gcc: bool = False) -> tuple[Build, float]:
    context = unified_guards.installed() if unified else contextlib.nullcontext()
    with context, torch._dynamo.config.patch(enable_cpp_symbolic_shape_guards=gcc), BuildProbe() as probe:
        workload = _fresh(WORKLOADS[name])()
        seconds = timeit.timeit(workload.step, number=1)
        workload.step()
        (build,) = probe.live()
    KEPT.append((build, workload))
    return build, seconds


def fifty(rounds: int) -> str:
    torch.compile(lambda x: x * 2 + 1, backend="eager")(torch.ones(3))
    _compiled("dynamic_50")  # caches of sympy's
    names = {"torch, Python": {}, "torch, gcc": {"gcc": True}, "unified": {"unified": True}}
    builds = {name: _compiled("dynamic_50", **options) for name, options in names.items()}
    checks = {name: lambda root=b.wrapper.root, f=b.f_locals: root.check(f) for name, (b, _) in builds.items()}
    plain, _ = builds["torch, Python"]
    function = plain.wrapper.root.get_epilogue_lambda_guards()[0]
    checks["Python function alone"] = lambda: function(plain.f_locals)
    unified, _ = builds["unified"]
    checked = unified.wrapper.entry.checked
    bare = make_checker(lower(without_shapes(checked)))
    full = make_checker(lower(checked))
    checks["native"] = lambda: full.check(unified.f_locals)
    checks["native without shapes"] = lambda: bare.check(unified.f_locals)
    failing = [name for name, check in checks.items() if not check()]
    assert not failing, failing
    samples: dict[str, list[float]] = {name: [] for name in checks}
    for _ in range(rounds):
        for name, check in checks.items():
            samples[name].append(timed(check))
    us = {name: median(found) for name, found in samples.items()}
    python = us["Python function alone"]
    shares = {
        "torch, Python": python,
        "torch, gcc": us["torch, gcc"] - (us["torch, Python"] - python),
        "unified": us["native"] - us["native without shapes"],
    }
    rows = [
        [name, f"{us[name]:.2f}", f"{shares[name]:.2f}", f"{shares[name] / python:.3f}", f"{b.seconds:.3f}", f"{s:.2f}"]
        for name, (b, s) in builds.items()
    ]
    columns = ["", "whole check µs", "of which shape guards µs", "/ Python", "guard building s", "first call s"]
    return markdown(columns, rows)


# -- many guards -------------------------------------------------------------------------------------------------------


def sizes_of(symbols: int) -> list[int]:
    return [8 * (2 + at % 50) for at in range(symbols)]


def texts(symbols: int) -> Iterator[str]:
    """Ten for each symbol, all true of :func:`sizes_of`, as torch would write them."""
    sizes = sizes_of(symbols)
    pick = random.Random(0)
    names = [f"L['t{at}'].size()[0]" for at in range(symbols)]
    for at, (name, size) in enumerate(zip(names, sizes, strict=True)):
        other = pick.randrange(symbols)
        yield f"2 <= {name} and {name} <= {size + pick.randrange(100)}"
        yield f"{name} > {pick.randrange(2, size)}"
        yield f"({name} % 8) == 0"
        yield f"({name} % {pick.choice([2, 4])}) == 0"
        yield f"{name} == {names[(at + 50) % symbols]}" if symbols > 50 else f"{name} != {size + 1}"
        yield f"{name} + {names[other]} <= {size + sizes[other] + pick.randrange(20)}"
        yield f"2*{name} + 3*{names[other]} != {pick.randrange(7)}"
        yield f"{name}*{names[other]} < {size * sizes[other] + 1 + pick.randrange(50)}"
        yield f"({name} // 4) <= {size // 4 + pick.randrange(3)}"
        yield f"{names[other]} * {name} > {pick.randrange(16)}"


def _tree(parts: list[str], f_locals: dict[str, torch.Tensor]) -> tuple[list[Any], Any, Origins, Any]:
    """A guard tree of torch's with these shape guards: its records, its root, where sizes are, torch's function."""
    closure = {**SYMPY_INTERP, **torch_guards._get_closure_vars()}
    _, code = torch_guards.build_guard_function(parts, ", ".join(closure))
    made: dict[str, Any] = {}
    exec(code, {"G": {}}, made)
    function = made["___make_guard_fn"](*closure.values())
    kind = torch_guards.GuardManagerType.GUARD_MANAGER
    managers: dict[str, Any] = {}
    origins = Origins()
    with unified_guards.installed(), recording() as records:
        root = native.RootGuardManager()
        for at, (name, tensor) in enumerate(f_locals.items()):
            source = LocalSource(name)
            manager = root.framelocals_manager(
                key=(name, at), source=source.name, example_value=tensor, guard_manager_enum=kind
            )
            keys = torch._C._dispatch_keys(tensor)
            manager.add_tensor_match_guard(tensor, [None], [1], source.name, [source.name], None, type(tensor), keys)
            managers[source.name] = manager
            size = TensorPropertySource(source, TensorProperty.SIZE, 0)
            origins.sources[size.name] = size
        records.append((LAMBDA_PARTS, None, (parts, parts, "shape_env", managers), {}, None))
        root.add_epilogue_lambda_guard(function, parts, None)
    return records, root, origins, function


def many(count: int, rounds: int) -> list[str]:
    symbols = count // GUARDS_A_SYMBOL
    f_locals = {f"t{at}": torch.empty(size) for at, size in enumerate(sizes_of(symbols))}
    parts = list(texts(symbols))
    records, root, origins, function = _tree(parts, f_locals)
    seconds: list[tuple[float, float, float]] = []
    gc.disable()  # as while Dynamo builds guards, see dynamo/install.py
    for _ in range(rounds):
        start = timeit.default_timer()
        guard_set = lift(records, root, origins).guard_set
        lifted = timeit.default_timer()
        simplified = simplify(guard_set)
        simple = timeit.default_timer()
        make_checker(lower(simplified.guard_set))
        seconds.append((lifted - start, simple - lifted, timeit.default_timer() - simple))
    gc.enable()
    lifting, simplifying, lowering = (median(part) for part in zip(*seconds, strict=True))
    whole = [_shape_cost(part, f_locals, rounds) for part in (guard_set, simplified.guard_set)]
    expressions = [sum(item.test is Test.EXPRESSION for item in part) for part in (guard_set, simplified.guard_set)]
    python = timed(lambda: function(f_locals))
    return [
        f"{expressions[0]:,}", str(symbols), f"{lifting:.3f}", f"{simplifying:.3f}", f"{lowering:.3f}",
        f"{lifting + simplifying + lowering:.3f}", f"{expressions[1]:,}", f"{whole[0]:.1f}", f"{whole[1]:.1f}",
        f"{python:,.0f}", f"{python / whole[1]:,.0f}x",
    ]  # fmt: skip


def _shape_cost(guard_set: GuardSet, f_locals: dict[str, Any], rounds: int) -> float:
    """What the expressions of a set add to a check in µs: reading the sizes and checking them."""
    programs: list[Program] = [lower(guard_set), lower(without_shapes(guard_set))]
    full, bare = (make_checker(program) for program in programs)
    assert full.check(f_locals) and full.counts[3] == 0
    samples = [(timed(lambda: full.check(f_locals)), timed(lambda: bare.check(f_locals))) for _ in range(rounds)]
    return median(full_us - bare_us for full_us, bare_us in samples)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured in turn (default 5)")
    rounds = parser.parse_args().rounds
    print(f"{environment()}\n\n## 50 inputs\n\n{fifty(rounds)}\n")
    columns = [
        "guards", "symbols", "lifted s", "simplified s", "lowered s", "together s", "left to check",
        "evaluated µs", "simplified, evaluated µs", "Python function µs", "Python / simplified",
    ]  # fmt: skip
    print("## Many guards\n")
    print(markdown(columns, [many(count, rounds) for count in COUNTS]))


if __name__ == "__main__":
    main()
