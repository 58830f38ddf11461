"""What torch logs of guards and recompiles, and what it names as the reason."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import nn

from ..harness import Watched, assert_same, cache_entries, ones, static
from .limits import SHARED_TENSOR
from .values import OtherPlain, Plain


class Messages(logging.Handler):
    """Collects what torch logs for some artifacts, as TORCH_LOGS would show it."""

    def __init__(self, **artifacts: bool) -> None:
        super().__init__(logging.DEBUG)
        self.artifacts = artifacts
        self.messages: list[str] = []
        self.loggers = [logging.getLogger(f"torch._dynamo.guards.__{name}") for name in artifacts]

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    @property
    def text(self) -> str:
        return "\n".join(self.messages)

    def __enter__(self) -> Messages:
        torch._logging.set_logs(**self.artifacts)
        for logger in self.loggers:
            logger.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        for logger in self.loggers:
            logger.removeHandler(self)
        torch._logging.set_logs()


class RecompileReasons:
    """Torch's own messages say what failed."""

    CASES: dict[str, tuple[Callable, Callable[[], tuple], Callable[[], tuple], str]] = {
        "size": (
            lambda x: x * 2,
            lambda: (ones(3),),
            lambda: (ones(4),),
            "tensor 'x' size mismatch at index 0. expected 3, actual 4",
        ),
        "rank": (
            lambda x: x * 2,
            lambda: (ones(3),),
            lambda: (ones(3, 1),),
            "tensor 'x' rank mismatch. expected 1, actual 2",
        ),
        "stride": (
            lambda x: x * 2,
            lambda: (ones(3, 3),),
            lambda: (ones(3, 6)[:, ::2],),
            "tensor 'x' stride mismatch at index 0. expected 3, actual 6",
        ),
        "dtype": (
            lambda x: x * 2,
            lambda: (ones(3),),
            lambda: (ones(3, dtype=torch.float64),),
            "tensor 'x' dtype mismatch. expected Float, actual Double",
        ),
        "requires_grad": (
            lambda x: x * 2,
            lambda: (ones(3),),
            lambda: (ones(3, requires_grad=True),),
            "tensor 'x' requires_grad mismatch. expected requires_grad=0",
        ),
        "tensor_type": (
            lambda x: x * 2,
            lambda: (ones(3),),
            lambda: (nn.Parameter(ones(3)),),
            "but found <class 'torch.nn.parameter.Parameter'>",
        ),
        "int": (lambda x, number: x * number, lambda: (ones(), 3), lambda: (ones(), 4), "number == 3"),
        "str": (lambda x, name: x * len(name), lambda: (ones(), "ab"), lambda: (ones(), "abc"), "name == 'ab'"),
        "none": (
            lambda x, value: x * 2 if value is None else x * 3,
            lambda: (ones(), None),
            lambda: (ones(), 1),
            "value is None",
        ),
        "type": (
            lambda x, value: x * value.scale,
            lambda: (ones(), Plain(scale=2)),
            lambda: (ones(), OtherPlain(scale=2)),
            "type=<class 'tests.behaviour.values.Plain'>",
        ),
        "attribute": (
            lambda x, value: x * value.scale,
            lambda: (ones(), Plain(scale=2)),
            lambda: (ones(), Plain(scale=3)),
            "value.scale == 2",
        ),
        "length": (
            lambda items: sum(items[1:], items[0] * 2),
            lambda: ([ones()],),
            lambda: ([ones(), ones()],),
            "len(items) == 1",
        ),
        "hasattr": (
            lambda x, value: x * 2 if hasattr(value, "extra") else x * 3,
            lambda: (ones(), Plain()),
            lambda: (ones(), Plain(extra=1)),
            'if hasattr(value, "extra")',
        ),
        "aliases": (
            lambda x, y: x * 2 + y,
            lambda: (ones(), ones()),
            lambda: (SHARED_TENSOR, SHARED_TENSOR),
            "Duplicate tensors found",
        ),
        "item": (
            lambda x, table: x * table["scale"],
            lambda: (ones(), {"scale": 2}),
            lambda: (ones(), {"scale": 3}),
            "table['scale'] == 2",
        ),
    }

    @pytest.mark.parametrize("name", CASES)
    def test_reason_for(self, name: str) -> None:
        function, first, second, fragment = self.CASES[name]
        watched = static(function)
        with Messages(recompiles=True) as log:
            watched.expect(1, *first())
            assert "triggered by" not in log.text
            watched.expect(2, *second())
        assert f"Recompiling function {function.__name__} in {__file__}" in log.text
        assert "triggered by the following guard failure(s)" in log.text
        assert fragment in log.text

    def test_reason_for_global_state(self) -> None:
        watched = static(lambda x: x * 2)
        with Messages(recompiles=True) as log:
            watched.expect(1, ones())
            with torch.no_grad():
                watched.expect(2, ones())
        assert "GLOBAL_STATE changed: grad_mode" in log.text

    def test_reason_for_a_shape_guard(self) -> None:
        watched = Watched(lambda x: x * 2 if x.size(0) > 10 else x * 3, dynamic=True)
        with Messages(recompiles=True) as log:
            watched.expect(1, ones(20))
            watched.expect(2, ones(5))
        assert "11 <= x.size()[0]" in log.text

    def test_one_reason_per_entry(self) -> None:
        watched = static(lambda x: x * 2)
        with Messages(recompiles=True) as log:
            for size in (3, 4, 5):
                watched(ones(size))
        last = log.messages[-1]
        assert "size mismatch at index 0. expected 3, actual 5" in last
        assert "size mismatch at index 0. expected 4, actual 5" in last

    def test_verbose_reasons(self) -> None:
        watched = static(lambda x, number: x * number)
        with Messages(recompiles_verbose=True) as log:
            watched.expect(1, ones(), 3)
            watched.expect(2, ones(4), 4)
        assert "guard 0 failures" in log.text
        assert "tensor 'x' size mismatch at index 0. expected 3, actual 4" in log.text

    def test_line_of_the_user(self) -> None:
        def function(x: torch.Tensor, number: int) -> torch.Tensor:
            return x * number  # the line that the reason shows

        watched = static(function)
        with Messages(recompiles=True) as log:
            watched.expect(1, ones(), 3)
            watched.expect(2, ones(), 4)
        assert "the line that the reason shows" in log.text

    def test_guards_artifact_prints_the_tree(self) -> None:
        watched = static(lambda x, number: x * number)
        with Messages(guards=True) as log:
            watched.expect(1, ones(), 3)
        assert "TREE_GUARD_MANAGER:" in log.text
        assert "RootGuardManager" in log.text
        assert "GLOBAL_STATE: ___check_global_state()" in log.text
        assert "TENSOR_MATCH: check_tensor(L['x']" in log.text
        assert "EQUALS_MATCH: L['number'] == 3" in log.text

    def test_guard_fail_fn(self) -> None:
        failures = []

        def function(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        compiled = torch._dynamo.optimize("eager", dynamic=False, guard_fail_fn=failures.append)(function)
        compiled(ones(3))
        assert not failures
        assert_same(compiled(ones(4)), ones(4) * 2)
        assert len(failures) == 1
        assert "size mismatch at index 0. expected 3, actual 4" in failures[0].reason
        assert failures[0].orig_code is function.__code__

    def test_guard_export_fn(self) -> None:
        exported: list = []
        compiled = torch._dynamo.optimize("eager", guard_export_fn=exported.extend)(lambda x: x * 2)
        compiled(ones())
        assert {"TENSOR_MATCH", "GRAD_MODE"} <= {guard.create_fn_name() for guard in exported}

    def test_error_on_recompile(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones(3))
        with torch._dynamo.config.patch(error_on_recompile=True):
            with pytest.raises(torch._dynamo.exc.RecompileError, match="size mismatch at index 0"):
                watched.compiled(ones(4))
            watched.expect(1, ones(3))

    def test_explain(self) -> None:
        explanation = torch._dynamo.explain(lambda x: x * 2)(ones())
        assert explanation.graph_count == 1
        assert explanation.out_guards

    def test_cache_entry_answers(self) -> None:
        def function(x: torch.Tensor, number: int) -> torch.Tensor:
            return x * number

        watched = static(function)
        watched.expect(1, ones(), 3)
        (entry,) = cache_entries(function)
        manager = entry.guard_manager
        assert isinstance(manager, torch._dynamo.guards.GuardManagerWrapper)
        assert isinstance(manager.root, torch._C._dynamo.guards.RootGuardManager)
        assert "TENSOR_MATCH" in str(manager)
        assert any("L['number'] == 3" in part for part in manager.code_parts)
        assert manager.check({"x": ones(), "number": 3})
        assert not manager.check({"x": ones(), "number": 4})
        assert not manager.check({"x": ones(4), "number": 3})
        assert manager.check_verbose({"x": ones(), "number": 3}).result
        verdict = manager.check_verbose({"x": ones(), "number": 4})
        assert not verdict.result
        assert "L['number'] == 3" in verdict.verbose_code_parts[0]
        assert callable(entry.code.__class__) and isinstance(entry.code, types.CodeType)
