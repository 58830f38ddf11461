"""Guards keep no model alive, and go with what they guard."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

from ..harness import cache_entries, collect, ones, static
from .recompile_reasons import Messages
from .values import Plain


class Lifetimes:
    """Guards keep no model alive, and do not outlive what they guard."""

    def test_model_argument_is_not_kept_alive(self) -> None:
        def function(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return model(x)

        watched = static(function)
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        watched(model, ones(2, 3))
        watched(model.eval(), ones(2, 3))
        watched(model, ones(2, 3))
        dead = [weakref.ref(part) for part in [*model.modules(), *model.parameters(), *model.buffers()]]
        del model
        gc.collect()
        assert [ref() for ref in dead] == [None] * len(dead)
        graphs = watched.graphs
        watched(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)), ones(2, 3))
        assert watched.graphs == graphs

    def test_compiled_model_is_not_kept_alive(self) -> None:
        model = nn.Linear(3, 3)
        compiled = torch.compile(model, backend="eager")
        compiled(ones())
        compiled(ones())
        dead = weakref.ref(model), weakref.ref(model.weight)
        del model, compiled
        gc.collect()
        assert [ref() for ref in dead] == [None, None]

    def test_input_tensors_are_not_kept_alive(self) -> None:
        watched = static(lambda x, items: x * 2 + items[0])
        x, items = ones(), [ones()]
        watched.expect(1, x, items)
        watched.expect(1, x, items)
        watched.expect(2, x.double(), items)
        dead = weakref.ref(x), weakref.ref(items[0])
        del x, items
        gc.collect()
        assert [ref() for ref in dead] == [None, None]

    def test_user_objects_are_not_kept_alive(self) -> None:
        watched = static(lambda x, value: x * value.nested.scale)
        value = Plain(nested=Plain(scale=2))
        watched.expect(1, ones(), value)
        watched.expect(1, ones(), value)
        dead = weakref.ref(value), weakref.ref(value.nested)
        del value
        gc.collect()
        assert [ref() for ref in dead] == [None, None]

    def test_failing_check_keeps_nothing_alive(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        watched.expect(1, ones(), Plain(scale=2))
        value = Plain(scale=3)
        with torch.compiler.set_stance("eager_on_recompile"):
            watched.expect(1, ones(), value)
        dead = weakref.ref(value)
        del value
        gc.collect()
        assert dead() is None

    @pytest.mark.parametrize("kind", ["class", "key"])
    def test_entry_is_invalidated_when_what_it_identifies_dies(self, kind: str) -> None:
        def function(x: torch.Tensor, value: Any) -> torch.Tensor:
            if kind == "class":
                return x * value.scale
            for key in value:
                x = x * value[key]
            return x

        def make(scale: int) -> Any:
            return type("Short", (), {"scale": scale})() if kind == "class" else {ones(): scale}

        watched = static(function)
        value = make(2)
        watched.expect(1, ones(), value)
        assert type(cache_entries(function)[0].guard_manager) is not torch._dynamo.guards.DeletedGuardManagerWrapper
        dead = weakref.ref(type(value) if kind == "class" else next(iter(value)))
        del value
        collect()
        assert dead() is None
        (entry,) = cache_entries(function)
        assert type(entry.guard_manager) is torch._dynamo.guards.DeletedGuardManagerWrapper
        with Messages(recompiles=True) as log:
            watched.expect(2, ones(), make(3))
        assert "invalidated" in log.text

    def test_many_short_lived_classes(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        with torch._dynamo.config.patch(recompile_limit=100, accumulated_recompile_limit=100):
            for scale in range(2, 8):
                watched(ones(), type("Short", (), {"scale": scale})())
                gc.collect()
        assert watched.graphs == 6

    def test_global_tensor_that_dies(self) -> None:
        namespace: dict[str, Any] = {"WEIGHT": ones()}
        exec("def function(x):\n    return x * WEIGHT", namespace)
        watched = static(namespace["function"])
        watched.expect(1, ones())
        dead = weakref.ref(namespace["WEIGHT"])
        namespace["WEIGHT"] = ones() * 3
        gc.collect()
        assert dead() is None
        watched.expect(1, ones())

    def test_function_that_dies_after_it_was_compiled(self) -> None:
        def make() -> Callable:
            def function(x: torch.Tensor) -> torch.Tensor:
                return x * 2

            return function

        for _ in range(3):
            watched = static(make())
            watched.expect(1, ones())
            watched.expect(1, ones())
            torch._dynamo.reset()
            del watched
            gc.collect()

    def test_reset(self) -> None:
        watched = static(lambda x: x * 2)
        watched.expect(1, ones())
        watched.expect(1, ones())
        torch._dynamo.reset()
        assert not cache_entries(watched.function)
        watched.expect(2, ones())
        watched.expect(2, ones())

    def test_reset_of_one_code(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        watched = static(function)
        watched.expect(1, ones())
        torch._dynamo.eval_frame.reset_code(function.__code__)
        watched.expect(2, ones())
        watched.expect(2, ones())
