"""Code of the user's raises while a guard reads: the guard fails, the frame is compiled again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.utils._pytree as pytree

from ..harness import assert_same, ones, static
from .values import Plain, Slotted


class RaisingGuards:
    """User code that raises while a guard reads it: the guard fails, the frame is compiled anew."""

    @staticmethod
    def subclass(failing: list) -> type:
        """A wrapper subclass whose metadata raises when told to: its guard is a call of user code."""

        class Wrapper(torch.Tensor):
            @staticmethod
            def __new__(cls: type, inner: torch.Tensor) -> torch.Tensor:
                return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore

            def __init__(self, inner: torch.Tensor) -> None:
                self.inner = inner

            def __tensor_flatten__(self) -> tuple:
                if failing:
                    raise failing.pop()
                return ["inner"], {"kind": 1}

            @classmethod
            def __metadata_guard__(cls, saved: Any, current: Any) -> bool:
                if failing:
                    raise failing.pop()
                return saved == current

            @staticmethod
            def __tensor_unflatten__(inner: dict, metadata: dict, size: Any, stride: Any) -> Wrapper:
                return Wrapper(inner["inner"])

            @classmethod
            def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                args, kwargs = pytree.tree_map_only(Wrapper, lambda x: x.inner, (args, kwargs or {}))
                return pytree.tree_map_only(torch.Tensor, Wrapper, func(*args, **kwargs))

        return Wrapper

    @pytest.mark.parametrize("error", [ValueError("bad"), AttributeError("bad"), KeyboardInterrupt("bad")], ids=repr)
    def test_metadata_that_raises_once(self, error: BaseException) -> None:
        failing: list = []
        wrapper = self.subclass(failing)
        graphs = 0

        def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
            nonlocal graphs
            graphs += 1
            return graph.forward

        compiled = torch.compile(lambda x: x * 2, backend=backend, dynamic=False)
        compiled(wrapper(ones()))
        compiled(wrapper(ones()))
        assert graphs == 1
        failing.append(error)
        assert_same(compiled(wrapper(ones())).inner, ones() * 2)
        assert not failing
        assert graphs == 2
        compiled(wrapper(ones()))
        assert graphs == 2

    def test_property_that_raises_after_compiling(self) -> None:
        class Value:
            broken = False
            scale = 2

            @property
            def doubled(self) -> int:
                if self.broken:
                    raise ValueError("bad property")
                return self.scale * 2

        watched = static(lambda x, value: x * value.doubled)
        value = Value()
        watched.expect(1, ones(), value)
        value.broken = True
        with pytest.raises(Exception, match="bad property"):
            watched.compiled(ones(), value)
        value.broken = False
        watched.expect(1, ones(), value)

    def test_getter_that_raises_where_an_attribute_was_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Value:
            pass

        def broken(self: Value) -> int:
            raise ValueError("bad property")

        watched = static(lambda x, value: x * 2 if hasattr(value, "extra") else x * 3)
        value = Value()
        watched.expect(1, ones(), value)
        monkeypatch.setattr(Value, "extra", property(broken), raising=False)
        assert_same(watched.compiled(ones(), value), ones() * 3)  # to the guard it is still missing
        assert watched.graphs == 1

    def test_getattr_that_raises_another_exception(self) -> None:
        class Value:
            def __getattr__(self, name: str) -> Any:
                if name == "extra" and self.__dict__.get("broken"):
                    raise ValueError("bad getattr")
                raise AttributeError(name)

        watched = static(lambda x, value: x * getattr(value, "extra", 3))
        value = Value()
        watched.expect(1, ones(), value)
        value.broken = True
        assert_same(watched.compiled(ones(), value), ones() * 3)  # torch does not notice
        assert watched.graphs == 1

    def test_slot_that_is_unset(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        value = Slotted(2)
        watched.expect(1, ones(), value)
        del value.scale
        with pytest.raises(AttributeError, match="scale"):
            watched.compiled(ones(), value)
        value.scale = 2
        watched.expect(1, ones(), value)

    def test_missing_global_dict_key(self) -> None:
        watched = static(lambda x, table: x * table["scale"])
        watched.expect(1, ones(), {"scale": 2})
        with pytest.raises(Exception, match="scale"):
            watched.compiled(ones(), {})
        watched.expect(1, ones(), {"scale": 2})

    def test_wrong_kind_of_argument(self) -> None:
        watched = static(lambda x, items: x * items[0])
        watched.expect(1, ones(), [2])
        watched.expect(2, ones(), (2,))
        watched.expect(3, ones(), {0: 2})
        watched.expect(4, ones(), ones(1))
        with pytest.raises(TypeError):
            watched.compiled(ones(), None)
        watched.expect(4, ones(), [2])

    def test_state_is_intact_after_a_failed_check(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        watched.expect(1, ones(), Plain(scale=2))
        with torch.no_grad(), pytest.raises(Exception, match="scale"):
            watched.compiled(ones(), Plain())
        assert torch.is_grad_enabled()
        assert torch._C._is_torch_function_enabled()
        watched.expect(1, ones(), Plain(scale=2))
