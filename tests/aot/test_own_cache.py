"""The cache of a wrapper is its own: nothing of torch's counts there, and nothing of it counts for torch."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch._subclasses import FakeTensor

import unified_guards

from .helpers import Counting, boxed, ones


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def test_two_wrappers_of_one_function_compile_each_for_itself() -> None:
    one, other = Counting(), Counting()
    first, second = unified_guards.aot_function(doubled, one), unified_guards.aot_function(doubled, other)
    for compiled in (first, second, first, second):
        compiled(ones(2))
    assert (len(one.graphs), len(other.graphs)) == (1, 1)
    assert (first.cache_info().hits, second.cache_info().hits) == (2, 2)


def test_a_reset_of_dynamo_leaves_the_versions() -> None:
    compiled = unified_guards.aot_function(doubled, nop)
    compiled(ones(2))
    torch._dynamo.reset()
    compiled(ones(2))
    assert (compiled.cache_info().entries, compiled.cache_info().misses) == (1, 1)


def test_the_limits_of_dynamo_do_not_count() -> None:
    compiled = unified_guards.aot_function(doubled, nop, recompile_limit=10)
    with torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=2):
        for size in range(2, 8):
            assert compiled(ones(size)).tolist() == [2.0] * size
    assert compiled.cache_info().entries == 6


def test_what_changes_is_known_of_one_wrapper_alone() -> None:
    first = unified_guards.aot_function(doubled, nop, dynamic=None)
    second = unified_guards.aot_function(doubled, nop, dynamic=None)
    for size in (2, 3, 4):
        first(ones(size))
    second(ones(2))
    assert "float32[2]" in str(second.explain())
    first.cache_clear()
    first(ones(2))
    assert "float32[2]" in str(first.explain())


def test_what_torch_compiles_meanwhile_is_untouched() -> None:
    compiled = torch.compile(doubled, backend="eager")
    before = unified_guards.stats()
    unified_guards.aot_function(doubled, nop)(ones(2))
    compiled(ones(2))
    after = unified_guards.stats()
    assert unified_guards.explain(compiled).frames[0].guard_set is None
    assert after.short_ways == before.short_ways


def test_it_does_not_matter_whether_guards_are_installed() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x.shape[0] > 2 else x * 3, nop)
    with unified_guards.installed():
        assert compiled(ones(2)).tolist() == [3.0, 3.0]
    assert compiled(ones(2)).tolist() == [3.0, 3.0]
    assert compiled(ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert compiled.cache_info()[:2] == (3, 2)


def test_inside_code_that_dynamo_runs_frame_by_frame() -> None:
    inner = unified_guards.aot_function(doubled, nop)

    def function(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        with pytest.MonkeyPatch.context():
            return torch._dynamo.disable(inner)(x) + 1

    outer = torch.compile(function, backend="eager")
    for _ in range(2):
        assert outer(ones(2)).tolist() == [3.0, 3.0]
    assert inner.cache_info()[:2] == (2, 1)


def test_threads_that_miss_together_compile_once_and_see_no_traced_tensor() -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    def compiler(graph: Any, inputs: Any) -> Any:
        inside.set()
        go_on.wait(60)
        return boxed(graph, inputs)

    module, found = Module(), []
    compiled = unified_guards.aot_module(module, compiler)
    threads = [threading.Thread(target=lambda: found.append(compiled(ones(2)))) for _ in range(3)]
    threads[0].start()
    assert inside.wait(60)
    assert type(module.weight) is torch.nn.Parameter  # while it is being traced
    assert not isinstance(module(ones(2)), FakeTensor)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert [each.tolist() for each in found] == [[1.0, 1.0]] * 3
    assert compiled.compiled.cache_info().entries == 1
    assert compiled.compiled.cache_info().recompiles == 0
