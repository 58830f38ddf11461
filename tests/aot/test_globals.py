"""What a function reads of globals, modules and callables, and what of them must not matter."""

from __future__ import annotations

import argparse
import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .following import agrees, follows, item_setter, setter
from .helpers import ones
from .objects import HOLDERS, PLAIN, Child, Config, Plain, settings

# -- globals -----------------------------------------------------------------------------------------------------------

SCALE: Any = 2
WEIGHT: Any = torch.ones(2)
OPTION: Any = None


def helper(x: torch.Tensor, scale: Any = 2, *, shift: Any = 1) -> torch.Tensor:
    return x * scale * SCALE + shift


def rebinding(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> Callable[[], None]:
    return lambda: monkeypatch.setitem(globals(), name, value)


@pytest.mark.parametrize("value", [3, 2.0, True])
def test_a_global_that_changes(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    follows(lambda x: x * SCALE, rebinding(monkeypatch, "SCALE", value))


def test_a_global_none_that_becomes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: x if OPTION is None else x * OPTION, rebinding(monkeypatch, "OPTION", 3))


def test_a_global_tensor_that_is_rebound(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: x * WEIGHT, nop)
    compiled(ones(2))
    monkeypatch.setitem(globals(), "WEIGHT", ones(2) * 4)
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 4)
    assert compiled.cache_info().entries == 1


def test_a_global_function_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: helper(x), rebinding(monkeypatch, "helper", lambda x: x * 7))


def test_a_global_that_a_helper_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: helper(x), rebinding(monkeypatch, "SCALE", 7))


def test_defaults_of_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "__defaults__", (2,))
    monkeypatch.setattr(helper, "__kwdefaults__", {"shift": 1})
    follows(
        lambda x: helper(x),
        setter(helper, "__defaults__", (5,)),
        item_setter(helper.__kwdefaults__, "shift", 3),
        setter(helper, "__kwdefaults__", {"shift": 9}),
    )


def test_a_builtin_that_is_shadowed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(lambda x: x * max(1, 2), lambda: monkeypatch.setitem(globals(), "max", lambda *_: 5))


def test_an_attribute_of_a_module_that_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    follows(lambda x: x * settings.FLAG, setter(settings, "FLAG", 3))


def test_an_attribute_of_an_attribute_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "inner", types.SimpleNamespace(flag=2))
    follows(lambda x: x * settings.inner.flag, setter(settings.inner, "flag", 3))


def test_a_module_under_a_local_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)

    def function(x: torch.Tensor) -> torch.Tensor:
        short = settings
        return x * short.FLAG

    agrees(function, setter(settings, "FLAG", 3))


def test_a_module_that_is_imported_in_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    monkeypatch.setitem(__import__("sys").modules, "settings_of_a_test", settings)

    def function(x: torch.Tensor) -> torch.Tensor:
        import settings_of_a_test  # type: ignore[import-not-found]

        return x * settings_of_a_test.FLAG

    def other(x: torch.Tensor) -> torch.Tensor:
        from settings_of_a_test import FLAG  # type: ignore[import-not-found]

        return x * FLAG

    agrees(function, setter(settings, "FLAG", 3))
    agrees(other, setter(settings, "FLAG", 4))


def test_a_module_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    modules = [settings]
    agrees(lambda x: x * modules[0].FLAG, setter(settings, "FLAG", 3))


def test_an_attribute_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    follows(lambda x: x * Config.flag, setter(Config, "flag", 3))


def test_an_inherited_attribute_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    follows(lambda x: x * Child.flag, setter(Config, "flag", 3))


def test_an_attribute_of_a_class_that_is_none_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "unset", None)
    follows(lambda x: x if Config.unset is None else x * 2, setter(Config, "unset", 3))


def test_an_attribute_of_a_class_read_through_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "shared", 2)
    agrees(lambda x: x * PLAIN.shared, setter(Plain, "shared", 3))


def test_an_attribute_of_a_class_read_by_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "shared", 2)
    agrees(lambda x: Plain.of_class(x), setter(Plain, "shared", 3))


def test_a_class_under_a_local_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)

    def function(x: torch.Tensor) -> torch.Tensor:
        short = Config
        return x * short.flag

    agrees(function, setter(Config, "flag", 3))


@pytest.mark.parametrize("kind", HOLDERS)
def test_an_attribute_of_an_object(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    holder = HOLDERS[kind]
    monkeypatch.setattr(holder, "value", 2)
    follows(lambda x: x * holder.value, setter(holder, "value", 3), setter(holder, "value", 3.0))


@pytest.mark.parametrize("kind", [types.SimpleNamespace, argparse.Namespace])
def test_an_attribute_of_a_namespace(kind: Any) -> None:
    options = kind(scale=2)
    agrees(lambda x: x * options.scale, setter(options, "scale", 3))


def test_an_attribute_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * scaled.scale  # type: ignore[attr-defined]

    scaled.scale = 2  # type: ignore[attr-defined]
    agrees(lambda x: scaled(x), setter(scaled, "scale", 3))


# -- callables ---------------------------------------------------------------------------------------------------------


def test_a_cached_helper_gives_what_it_gives() -> None:
    @functools.lru_cache
    def cached(size: int) -> int:
        return size * 2

    agrees(lambda x: x * cached(x.shape[0]))


def test_a_cached_helper_is_not_filled_with_traced_tensors() -> None:
    @functools.lru_cache
    def mask(size: int) -> torch.Tensor:
        return ones(size) * 2

    compiled = unified_guards.aot_function(lambda x: x * mask(2), nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 2)
    assert type(mask(2)) is torch.Tensor
    torch.testing.assert_close(mask(2), ones(2) * 2)


def test_a_partial_whose_keywords_change() -> None:
    partial = functools.partial(helper, scale=3)
    follows(partial, item_setter(partial.keywords, "scale", 4))


def test_a_bound_method_and_what_it_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Plain(2)
    follows(holder.scaled, setter(holder, "value", 3))


def test_a_callable_object() -> None:
    holder = Plain(2)
    follows(holder, setter(holder, "value", 3))


def test_the_defaults_of_the_function() -> None:
    def function(x: torch.Tensor, scale: Any = 2, *, shift: Any = 1) -> torch.Tensor:
        return x * scale + shift

    follows(function, setter(function, "__defaults__", (3,)), setter(function, "__kwdefaults__", {"shift": 5}))


def test_other_code_in_the_function() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def other(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    follows(function, lambda: setattr(function, "__code__", other.__code__))


# -- what must not matter ----------------------------------------------------------------------------------------------

UNRELATED: Any = 1


def test_other_globals_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: helper(x), nop)
    compiled(ones(2))
    monkeypatch.setitem(globals(), "UNRELATED", 2)
    monkeypatch.setitem(globals(), "NEW", 2)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_other_attributes_of_modules_and_classes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: torch.sin(x) * settings.FLAG * Config.flag, nop)
    compiled(ones(2))
    monkeypatch.setattr(torch, "of_a_test", 1, raising=False)
    monkeypatch.setattr(settings, "OTHER", 1, raising=False)
    monkeypatch.setattr(Config, "unset", 1)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_equal_constants_are_as_good_as_identical_ones() -> None:
    compiled = unified_guards.aot_function(lambda x, *_: x * 2, nop)
    for _ in range(2):
        text, number = "".join(["te", "xt"]), int("12345678")
        compiled(ones(2), text, number, float("2.5"), (number, text), slice(0, number), frozenset([number]))
    assert compiled.cache_info().misses == 1
