"""Many calls leave nothing behind, whichever way they go."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.eval_frame import remove_from_cache

from ..harness import assert_same, cache_entries, collect, ones, run_python
from .watching import shorts

SCRIPT = """
import contextlib, gc, os, sys
import torch, unified_guards

unified_guards.install()

class Failing:
    fails = False

    def __call__(self, graph, inputs):
        def run(*args):
            if self.fails:
                raise ZeroDivisionError
            return graph.forward(*args)
        return run

def add(x, y=1):
    return x + y, {"x": x}

def broken(x):
    x = x + 1
    torch._dynamo.graph_break()
    return x * 2

backend = Failing()
compiled = torch.compile(add, backend=backend, dynamic=False)
module = torch.compile(torch.nn.Linear(3, 3), backend="eager", dynamic=False)
breaks = torch.compile(broken, backend="eager", dynamic=False)

def hits():
    x = torch.ones(3)
    compiled(x, y=2)
    module(x)

def graph_breaks():
    breaks(torch.ones(3))

def misses():
    with contextlib.suppress(TypeError):
        compiled()
    with torch.compiler.set_stance("force_eager"):
        compiled(torch.ones(3), 2)
    with torch.compiler.set_stance("eager_on_recompile"):
        compiled(torch.ones(4), 2)
    limited(torch.ones(7))

def raises():
    backend.fails = True
    with contextlib.suppress(ZeroDivisionError):
        compiled(torch.ones(3), 2)
    backend.fails = False

limited = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
with torch._dynamo.config.patch(recompile_limit=1):
    for size in (2, 3, 4):
        limited(torch.ones(size))

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

def state():
    gc.collect()
    return sys.getallocatedblocks(), resident()

for work, times in ((hits, 50_000), (graph_breaks, 5_000), (misses, 5_000), (raises, 10_000)):
    for _ in range(times // 5):
        work()
    # What is made once, whenever that is, is in one round; what calls leave behind is in each.
    for _ in range(3):
        blocks, memory = state()
        for _ in range(times):
            work()
        more, larger = state()
        if more - blocks < 300 and larger - memory < 4 << 20:
            break
    assert more - blocks < 300, f"{work.__name__}: {more - blocks} objects more"
    assert larger - memory < 4 << 20, f"{work.__name__}: {larger - memory} bytes more"
print("calls", unified_guards.stats().short_ways)
"""


@pytest.mark.parametrize("verify", ["0", "1"])
def test_many_calls_need_no_memory(tmp_path: Path, verify: str) -> None:
    """100,000 hits; calls that raise; and calls that go torch's way for each of several reasons."""
    script = tmp_path / "calls.py"
    script.write_text(SCRIPT)
    done = run_python(str(script), environ={"UNIFIED_GUARDS_VERIFY": verify})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 100_000, done.stdout


@pytest.mark.parametrize(
    "drop", [lambda compiled: remove_from_cache(compiled.__wrapped__), lambda compiled: torch._dynamo.reset()]
)
def test_entries_that_are_dropped_leave_nothing(drop: Callable[[Any], None]) -> None:
    """More of them than the recompile limit."""
    graphs: list[weakref.ref[Any]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(weakref.ref(graph))
        return graph.forward

    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    compiled = torch.compile(add, backend=backend)
    for at in range(20):
        for _ in range(3):
            assert_same(compiled(ones()), ones() * 2)
        assert shorts(compiled) == 2 * (at + 1)
        drop(compiled)
        assert cache_entries(compiled) == []
    collect()
    assert [each() for each in graphs] == [None] * 20
