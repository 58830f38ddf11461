"""What a function reads of objects among its arguments."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch.utils import _pytree as pytree

import unified_guards

from .following import item_setter, setter
from .helpers import ones
from .objects import Config, Plain


def argument_follows(function: Callable[..., Any], argument: Any, change: Callable[[], Any]) -> None:
    """As :func:`agrees`, for a function of a tensor and ``argument``."""
    compiled = unified_guards.aot_function(function, nop)
    for step in (lambda: None, change):
        step()
        for _ in range(2):
            torch.testing.assert_close(compiled(ones(2), argument), function(ones(2), argument), rtol=0, atol=0)


def test_an_attribute_of_an_object_among_the_arguments() -> None:
    holder = Plain(2)
    argument_follows(lambda x, given: x * given.value, holder, setter(holder, "value", 3))


def test_a_closure_of_a_function_among_the_arguments() -> None:
    scale = [2]
    argument_follows(lambda x, given: given(x), lambda x: x * scale[0], item_setter(scale, 0, 3))


def test_an_attribute_of_a_class_among_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    argument_follows(lambda x, given: x * given.flag, Config, setter(Config, "flag", 3))


def test_the_context_of_a_registered_class_is_compared_exactly() -> None:
    class Scaled:
        def __init__(self, content: torch.Tensor, scale: Any) -> None:
            self.content, self.scale = content, scale

    pytree.register_pytree_node(Scaled, lambda s: ([s.content], (s.scale,)), lambda parts, c: Scaled(parts[0], *c))
    compiled = unified_guards.aot_function(lambda scaled: scaled.content * scaled.scale, nop)
    whole = ones(2, dtype=torch.int64)
    assert compiled(Scaled(whole, 2)).dtype is torch.int64
    assert compiled(Scaled(whole, 2.0)).dtype is torch.float32


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
@pytest.mark.parametrize("keys", [(1, True), (0.0, -0.0), ((1,), (True,))], ids=repr)
def test_keys_are_compared_exactly(kind: Any, keys: tuple[Any, Any]) -> None:
    compiled = unified_guards.aot_function(lambda tree: [(key, value * 2) for key, value in tree.items()], nop)
    for key in keys:
        ((found, _),) = compiled(kind({key: ones(2)}))
        assert repr(found) == repr(key)
