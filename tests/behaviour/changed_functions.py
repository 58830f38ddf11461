"""What a function reads around it changes: closures, defaults, globals, modules."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo

from ..harness import assert_same, ones, static
from .values import (
    GLOBAL_DICT,
    GLOBAL_FUNCTION,
    GLOBAL_HOLDER,
    GLOBAL_MODULE,
    GLOBAL_NUMBER,
    GLOBAL_TENSOR,
    negate,
    twice,
)


class ChangedFunctions:
    """Closures, defaults, globals and modules that the function reads."""

    def test_closure_cell(self) -> None:
        scale: Any = 2

        def function(x: torch.Tensor) -> torch.Tensor:
            return x * scale

        watched = static(function)
        watched.expect(1, ones())
        scale = 3
        watched.expect(2, ones())
        scale = 2
        watched.expect(2, ones())
        scale = ones()
        watched.expect(3, ones())

    def test_two_closures_of_one_code(self) -> None:
        def make(scale: int) -> Callable:
            def function(x: torch.Tensor) -> torch.Tensor:
                return x * scale

            return function

        graphs = 0

        def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            nonlocal graphs
            graphs += 1
            return graph.forward

        two, three = (torch.compile(make(scale), backend=backend, dynamic=False) for scale in (2, 3))
        for _ in range(3):
            assert_same(two(ones()), ones() * 2)
            assert_same(three(ones()), ones() * 3)
        assert graphs == 2

    def test_cell_of_an_inlined_function(self) -> None:
        scale = 2

        def helper(x: torch.Tensor) -> torch.Tensor:
            return x * scale

        watched = static(lambda x: helper(x) + 1)
        watched.expect(1, ones())
        scale = 3
        watched.expect(2, ones())

    def test_default(self) -> None:
        def helper(x: torch.Tensor, scale: int = 2) -> torch.Tensor:
            return x * scale

        watched = static(lambda x: helper(x) + 1)
        watched.expect(1, ones())
        helper.__defaults__ = (3,)
        watched.expect(2, ones())

    def test_keyword_default(self) -> None:
        def helper(x: torch.Tensor, *, scale: int = 2) -> torch.Tensor:
            return x * scale

        watched = static(lambda x: helper(x) + 1)
        watched.expect(1, ones())
        helper.__kwdefaults__ = {"scale": 3}
        watched.expect(2, ones())
        helper.__kwdefaults__["scale"] = 2
        watched.expect(2, ones())

    def test_code_replaced(self) -> None:
        def helper(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def other(x: torch.Tensor) -> torch.Tensor:
            return x * 3

        watched = static(lambda x: helper(x) + 1)
        watched.expect(1, ones())
        helper.__code__ = other.__code__
        watched.expect(2, ones())

    def test_attribute_of_a_function(self) -> None:
        def helper(x: torch.Tensor) -> torch.Tensor:
            return x * helper.scale  # type: ignore[attr-defined]

        helper.scale = 2  # type: ignore[attr-defined]
        watched = static(lambda x: helper(x) + 1)
        watched.expect(1, ones())
        helper.scale = 3  # type: ignore[attr-defined]
        watched.expect(2, ones())

    @pytest.mark.parametrize(
        ("name", "value"), [("GLOBAL_NUMBER", 3), ("GLOBAL_NUMBER", 2.0), ("GLOBAL_FUNCTION", twice)]
    )
    def test_global(self, name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: GLOBAL_FUNCTION(x * GLOBAL_NUMBER))
        watched.expect(1, ones())
        with monkeypatch.context() as patch:
            patch.setitem(globals(), name, value)
            watched.expect(2, ones())
        watched.expect(2, ones())

    def test_global_tensor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: x * GLOBAL_TENSOR)
        watched.expect(1, ones())
        monkeypatch.setitem(globals(), "GLOBAL_TENSOR", ones() * 4)
        watched.expect(1, ones())
        monkeypatch.setitem(globals(), "GLOBAL_TENSOR", ones(3, dtype=torch.float64))
        watched.expect(2, ones())

    def test_metadata_of_a_global_tensor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(globals(), "GLOBAL_TENSOR", ones())
        watched = static(lambda x: x * GLOBAL_TENSOR)
        watched.expect(1, ones())
        GLOBAL_TENSOR.requires_grad_(True)
        watched.expect(2, ones())

    def test_item_of_a_global_dict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: x * GLOBAL_DICT["scale"])
        watched.expect(1, ones())
        monkeypatch.setitem(GLOBAL_DICT, "unread", 1)
        watched.expect(1, ones())
        monkeypatch.setitem(GLOBAL_DICT, "scale", 3)
        watched.expect(2, ones())

    def test_attribute_of_a_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: x * GLOBAL_MODULE.SCALE)
        watched.expect(1, ones())
        monkeypatch.setattr(GLOBAL_MODULE, "SCALE", 3)
        watched.expect(2, ones())

    def test_attribute_of_a_global_object(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: x * GLOBAL_HOLDER.scale)
        watched.expect(1, ones())
        monkeypatch.setattr(GLOBAL_HOLDER, "scale", 3)
        watched.expect(2, ones())

    def test_function_of_a_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(GLOBAL_MODULE, "helper", negate, raising=False)
        watched = static(lambda x: GLOBAL_MODULE.helper(x) + 1)
        watched.expect(1, ones())
        monkeypatch.setattr(GLOBAL_MODULE, "helper", twice)
        watched.expect(2, ones())

    def test_builtin_shadowed_by_a_global(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x: x * len("abc"))
        watched.expect(1, ones())
        monkeypatch.setitem(globals(), "len", lambda text: 7)
        assert_same(watched.compiled(ones()), ones() * 3)  # torch does not notice
        assert watched.graphs == 1

    def test_builtin_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(builtins, "behaviour_helper", negate, raising=False)
        namespace: dict[str, Any] = {}
        exec("def function(x):\n    return behaviour_helper(x) + 1", namespace)
        watched = static(namespace["function"])
        watched.expect(1, ones())
        monkeypatch.setattr(builtins, "behaviour_helper", twice)
        watched.expect(2, ones())

    def test_global_deleted(self) -> None:
        namespace: dict[str, Any] = {"SCALE": 2}
        exec("def function(x):\n    return x * SCALE", namespace)
        watched = static(namespace["function"])
        watched.expect(1, ones())
        del namespace["SCALE"]
        with pytest.raises(Exception, match="SCALE"):
            watched.compiled(ones())
        namespace["SCALE"] = 2
        watched.expect(1, ones())

    def test_unbound_local(self) -> None:
        def function(x: torch.Tensor, flag: bool) -> torch.Tensor:
            if flag:
                extra = 3
            torch._dynamo.graph_break()
            return x * extra if flag else x * 5

        watched = static(function)
        watched(ones(), True)
        first = watched.graphs
        watched(ones(), False)
        second = watched.graphs
        assert second > first
        watched.expect(second, ones(), True)
        watched.expect(second, ones(), False)

    def test_comprehensions_and_lambdas(self) -> None:
        def function(x: torch.Tensor, items: list) -> torch.Tensor:
            pairs = [(lambda y, scale=item: y * scale) for item in items]
            return sum((pair(x) for pair in pairs), x)

        watched = static(function)
        watched.expect(1, ones(), [1, 2])
        watched.expect(1, ones(), [1, 2])
        watched.expect(2, ones(), [1, 3])
