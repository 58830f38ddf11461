"""Shape guards as Dynamo makes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

import unified_guards
from unified_guards.guards.ir import Test
from unified_guards.guards.names import place


def shapes_of(compiled: Any, at: int = 0) -> list[str]:
    checked = unified_guards.explain(compiled).frames[at].guard_set
    return [str(item) for item in checked if item.test is Test.EXPRESSION]


@pytest.mark.usefixtures("installed")
class TestDynamo:
    def test_shape_guards_are_expressions_and_call_no_python(self) -> None:
        def halve(x: torch.Tensor, n: int) -> torch.Tensor:
            return x * 2 if x.shape[0] % 4 == 0 and x.shape[0] > n else x

        compiled = torch.compile(halve, backend="eager", dynamic=True)
        for rows in (8, 12, 16):
            compiled(torch.ones(rows), 5)
        (frame,) = unified_guards.explain(compiled).frames
        assert {"L['x'].size()[0] % 4 == 0", "L['x'].size()[0] > L['n']"} <= set(shapes_of(compiled))
        assert frame.python_callbacks == 0
        assert frame.counts[1:] == (2, 0, 0)

    def test_a_range_is_two_guards(self) -> None:
        def between(x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] > 4 and x.shape[0] < 9 else x

        compiled = torch.compile(between, backend="eager", dynamic=True)
        compiled(torch.ones(6))
        assert {"5 <= L['x'].size()[0]", "L['x'].size()[0] <= 8"} <= set(shapes_of(compiled))

    def test_floats_are_read_natively(self) -> None:
        def scale(x: torch.Tensor, by: float) -> torch.Tensor:
            return x * by if by > 1.5 else x - 1

        compiled = torch.compile(scale, backend="eager", dynamic=True)
        for by in (2.5, 3.5, 4.5):
            compiled(torch.ones(3), by)
        assert unified_guards.explain(compiled).frames[0].counts[1:] == (2, 0, 0)
        compiled(torch.ones(3), float("nan"))
        assert len(unified_guards.explain(compiled).frames) == 2

    def test_numbers_are_read_where_the_tree_has_them(self) -> None:
        def fits(x: torch.Tensor, limits: dict[str, list[int]]) -> torch.Tensor:
            return x + 1 if x.shape[0] < limits["rows"][1] else x - 1

        compiled = torch.compile(fits, backend="eager", dynamic=True)
        compiled(torch.ones(4, 3), {"rows": [2, 5]})
        compiled(torch.ones(6, 3), {"rows": [2, 9]})
        assert "L['x'].size()[0] < L['limits']['rows'][1]" in shapes_of(compiled)
        assert unified_guards.explain(compiled).frames[0].counts[1:] == (1, 0, 0)

    def test_a_class_with_its_own_size_keeps_torchs_function(self) -> None:
        class Sized(torch.Tensor):
            def size(self, *args: Any) -> Any:
                return super().size(*args)

        before = unified_guards.stats().shapes_left_to_torch
        x = torch.ones(4, 3).as_subclass(Sized)
        compiled = torch.compile(lambda x: x * 2 if x.size(0) > 2 else x, backend="eager", dynamic=True)
        compiled(x)
        after = unified_guards.stats().shapes_left_to_torch
        left = {why for why in after if after[why] != before.get(why)}
        if any(item.test is Test.SHAPE for item in unified_guards.explain(compiled).frames[0].guard_set):
            assert left == {"a shape guard reads a tensor whose class has a size() of its own"}
            assert "shape guards stayed Python" in str(unified_guards.stats())

    def test_a_subclass_without_its_own_size_is_read_natively(self) -> None:
        class Named(torch.Tensor):
            pass

        compiled = torch.compile(lambda x: x * 2 if x.shape[0] > 2 else x, backend="eager", dynamic=True)
        compiled(torch.ones(4, 3).as_subclass(Named))
        assert "3 <= L['x'].size()[0]" in shapes_of(compiled)
        compiled(torch.ones(5, 3).as_subclass(Named))
        assert unified_guards.explain(compiled).frames[0].counts == (1, 1, 0, 0)

    def test_jagged_tensors_decide_as_with_torch(self) -> None:
        def double(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 + y

        def nested(*lengths: int) -> torch.Tensor:
            rows = [torch.ones(length, 4) for length in lengths]
            return torch.nested.nested_tensor(rows, layout=torch.jagged)

        counts = {}
        for name, context in (("unified", unified_guards.installed), ("torch", torch.no_grad)):
            torch._dynamo.reset()
            unified_guards.uninstall()
            with context():
                counter = torch._dynamo.testing.CompileCounter()
                compiled = torch.compile(double, backend=counter, dynamic=True)
                for lengths in ((2, 3), (2, 3), (4, 5, 6), (1, 2)):
                    x = nested(*lengths)
                    compiled(x, x)
                counts[name] = counter.frame_count
        assert counts["unified"] == counts["torch"]

    def test_the_recompile_is_explained_by_the_expression(self) -> None:
        def pick(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] * 2 > y.shape[0] else x

        compiled = torch.compile(pick, backend="eager", dynamic=True)
        compiled(torch.ones(8), torch.ones(4))
        compiled(torch.ones(8), torch.ones(24))
        first = unified_guards.explain(compiled).frames[-1]
        (miss,) = first.recompile_reasons
        assert miss.startswith(
            "2 * L['x'].size()[0] > L['y'].size()[0] (found L['x'].size()[0] = 8, L['y'].size()[0] = 24)  # shape_env, "
        )
        line = pick.__code__.co_firstlineno + 1
        assert miss.endswith(place(__file__, line))
        assert f"compiled again because of: {miss}" in first.summary()

    def test_a_recompile_of_a_backends_making_names_the_backend(self) -> None:
        def tiling(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            sizes = [size for x in inputs if isinstance(x, torch.Tensor) for size in x.shape]
            if sizes[0] % 16 == 0:
                made.append("tiles of 16 rows")
            return make_boxed_func(graph.forward)

        made: list[str] = []
        compiled = torch.compile(lambda x: x + 1, backend=aot_autograd(fw_compiler=tiling), dynamic=True)
        compiled(torch.ones(32))
        compiled(torch.ones(33))
        (miss,) = unified_guards.explain(compiled).frames[-1].recompile_reasons
        assert made == ["tiles of 16 rows"]
        assert miss.startswith("L['x'].size()[0] % 16 == 0 (found 33)  # aot, ")

    def test_other_guards_say_what_they_found_too(self) -> None:
        compiled = torch.compile(lambda x, flag: x + 1 if flag else x - 1, backend="eager")
        compiled(torch.ones(3), True)
        compiled(torch.ones(3), False)
        compiled(torch.ones(3, dtype=torch.float64), True)
        newest, middle, oldest = unified_guards.explain(compiled).frames
        assert oldest.recompile_reasons[0].startswith("L['flag'] is True (found False)  # dynamo")
        assert (
            "(found Tensor float64[3] strides (1) on cpu: dtype is float64, not float32)" in oldest.recompile_reasons[1]
        )
        assert len(middle.recompile_reasons) == 1
        assert newest.recompile_reasons == ()

    def test_only_the_last_misses_are_kept(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=20):
            compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
            for rows in range(2, 16):
                compiled(torch.ones(rows))
        misses = unified_guards.explain(compiled).frames[-1].recompile_reasons
        assert len(misses) == 8
        assert "[15]" in misses[-1]
