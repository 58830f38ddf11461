"""``aot_function``: its cache: hits, compilers, limits, and what is said of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch._subclasses import FakeTensor, FakeTensorMode

import unified_guards

from .helpers import boxed, branch, ones


def test_no_conversion_is_done_twice_and_none_on_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    original = FakeTensorMode.from_tensor

    def counting(self: Any, tensor: Any, **options: Any) -> Any:
        converted.append(id(tensor))
        return original(self, tensor, **options)

    monkeypatch.setattr(FakeTensorMode, "from_tensor", counting)
    weight = ones(3)
    args = (ones(3), [ones(3), ones(3, requires_grad=True)])
    compiled = unified_guards.aot_function(lambda x, ys: x + ys[0] * ys[1] + weight, nop)
    compiled(*args)
    assert sorted(converted) == sorted(map(id, (args[0], *args[1], weight)))
    assert compiled.cache_info().fake_conversions == 4
    compiled(*args)
    assert len(converted) == 4
    compiled(ones(4)[:3], args[1])
    assert compiled.cache_info().fake_conversions == len(converted)


def test_compiling_happens_at_lowering_time_not_at_the_first_run() -> None:
    events: list[str] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        events.append("compile")
        assert all(isinstance(x, FakeTensor) for x in inputs)
        run = boxed(graph, inputs)

        def wrapped(args: list[Any]) -> Any:
            events.append("run")
            return run(args)

        wrapped._boxed_call = True  # type: ignore[attr-defined]
        return wrapped

    compiled = unified_guards.aot_function(lambda x: x + 1, compiler)
    compiled.compile(ones(3))
    assert events == ["compile"]
    compiled(ones(3))
    assert events == ["compile", "run"]


def test_keyword_arguments_are_passed_on_to_every_compiler() -> None:
    seen: list[Any] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any, **options: Any) -> Any:
        seen.append(options)
        return boxed(graph, inputs)

    compiled = unified_guards.aot_function(lambda x: x.sin(), compiler, compiler, level=3)
    compiled(ones(3, requires_grad=True)).sum().backward()
    assert seen == [{"level": 3}, {"level": 3}]


def test_the_least_recently_used_version_leaves_first() -> None:
    compiled = unified_guards.aot_function(branch, nop, max_entries=2, recompile_limit=100)
    for size in (2, 3, 2, 4):
        compiled(ones(size))
    before = compiled.cache_info()
    assert (before.entries, before.recompiles) == (2, 2)
    compiled(ones(2))
    assert compiled.cache_info().recompiles == before.recompiles
    compiled(ones(3))
    assert compiled.cache_info().recompiles == before.recompiles + 1


def test_at_the_limit_calls_run_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    compiled = unified_guards.aot_function(branch, nop, recompile_limit=2)
    with caplog.at_level(logging.WARNING):
        for size in (2, 3, 8, 9, 2):
            torch.testing.assert_close(compiled(ones(size)), branch(ones(size)))
    assert compiled.cache_info().eager == {"recompile_limit (2) reached": 2}
    assert len([record for record in caplog.records if "recompile_limit" in record.getMessage()]) == 1


def test_at_the_limit_an_error_when_asked_for() -> None:
    compiled = unified_guards.aot_function(branch, nop, recompile_limit=1, on_recompile_limit="error")
    compiled(ones(2))
    with pytest.raises(unified_guards.RecompileLimitError, match=r"dynamic=True(.|\n)*") as caught:
        compiled(ones(3))
    assert "L['args'][0]" in str(caught.value)
    compiled(ones(2))


def test_cache_clear_forgets() -> None:
    compiled = unified_guards.aot_function(branch, nop)
    compiled(ones(2))
    compiled.cache_clear()
    assert compiled.cache_info()[:3] == (0, 0, 0)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_the_reason_of_a_recompile_names_the_guard_and_who_made_it() -> None:
    compiled = unified_guards.aot_function(branch, nop, dynamic=True)
    compiled(ones(3))
    compiled(ones(8))
    (reason,) = compiled.recompiles()
    assert "L['args'][0].size()[0] <= 4" in str(reason)
    assert "shape_env, " in str(reason)
    assert "helpers.py" in str(reason)


def test_recompiles_are_logged_as_torch_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    torch._logging.set_logs(recompiles=True)
    try:
        compiled = unified_guards.aot_function(branch, nop)
        with caplog.at_level(logging.DEBUG):
            compiled(ones(3))
            compiled(ones(8))
    finally:
        torch._logging.set_logs()
    (said,) = [record.getMessage() for record in caplog.records if "Recompiling" in record.getMessage()]
    assert "triggered by the following guard failure(s)" in said
    assert "float32[3]" in said


def test_explain_shows_every_version() -> None:
    compiled = unified_guards.aot_function(branch, nop, dynamic=True)
    compiled(ones(3))
    compiled(ones(8))
    report = compiled.explain()
    assert len(report.frames) == 2
    assert [frame.python_callbacks for frame in report.frames] == [0, 0]  # shape expressions are native
    assert "recompile 1:" in report.summary()
    assert str(unified_guards.explain(compiled)) == str(report)


def test_stats_count_versions_and_eager_calls() -> None:
    before = unified_guards.stats()
    compiled = unified_guards.aot_function(lambda x, it: x + next(it), nop)
    compiled(ones(2), iter([1]))
    unified_guards.aot_function(branch, nop)(ones(2))
    after = unified_guards.stats()
    assert after.aot_entries == before.aot_entries + 1
    assert sum(after.aot_run_eagerly.values()) == sum(before.aot_run_eagerly.values()) + 1
    assert "run eagerly" in str(after)


def test_a_recompile_has_the_advice_of_the_table_in_the_words_of_an_entry_point() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2, lambda graph, _: graph)
    compiled(torch.ones(3))
    compiled(torch.ones(3, dtype=torch.float64))
    compiled(torch.ones(4))
    dtype, size = compiled.recompiles()
    assert dtype.advice[0] is not None and dtype.advice[0].name == "dtype"
    assert "\n  cause: dtype of args[0] was float32 when this was compiled and is float64\n  to do: " in str(dtype)
    assert [each.name for each in size.advice if each is not None] == ["dtype", "size"]
    summary = compiled.explain().summary()
    assert "aot_function(f, …, dynamic=True)" in summary and "torch.compile(dynamic=True)" not in summary
