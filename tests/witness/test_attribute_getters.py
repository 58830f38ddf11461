"""Which attribute hooks are of a known form, so that what they give is remembered."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
import torch

from unified_guards import _C
from unified_guards.dynamo import attribute_getters

from ..guards import attr, checker, equals
from .building import holds, recorded
from .changes.attribute_getters import config_class, property_class, unless_class


def known(kind: type, name: str = "__getattribute__") -> bool:
    attribute_getters.learn([kind()], ["flag"])
    found = vars(kind)[name]
    return _C.knows_attribute_hook((found.fget if isinstance(found, property) else found).__code__)


def test_each_form_is_known() -> None:
    assert known(config_class())
    assert known(unless_class())
    assert known(property_class(), "flag")
    attribute_getters.learn([torch.nn.Linear(1, 1)])
    assert _C.knows_attribute_hook(torch.nn.Module.__getattr__.__code__)


class OtherOperator:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key not in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map").get(key, key)
        return super().__getattribute__(key)


class ExtraStatement:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        key = key.lower()
        return super().__getattribute__(key)


class TwoNames:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("another_map")[key]
        return super().__getattribute__(key)


class Unless:
    def __getattribute__(self, key: str) -> Any:
        found = super().__getattribute__("__dict__").get("delegate")
        if found is None:
            return super().__getattribute__("delegate")
        return super().__getattribute__(key)


class Computes:
    @property
    def flag(self) -> bool:
        return not self._flag

    _flag = False


class LooksElsewhere:
    def __getattr__(self, name: str) -> Any:
        if "_parts" in self.__dict__:
            parts = self.__dict__["_others"]
            if name in parts:
                return parts[name]
        raise AttributeError(name)


class ReturnsAtLast:
    def __getattr__(self, name: str) -> Any:
        if "_parts" in self.__dict__:
            parts = self.__dict__["_parts"]
            if name in parts:
                return parts[name]
        return None


class TakesMore:
    attribute_map: dict[str, str] = {}

    def __getattribute__(self, key: str, extra: Any = super) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        return super().__getattribute__(key)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (OtherOperator, "__getattribute__"),
        (ExtraStatement, "__getattribute__"),
        (TwoNames, "__getattribute__"),
        (Unless, "__getattribute__"),
        (Computes, "flag"),
        (LooksElsewhere, "__getattr__"),
        (ReturnsAtLast, "__getattr__"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_only_looks_like_a_form_is_not_known(kind: type, name: str) -> None:
    assert not known(kind, name)


def test_a_hook_with_another_default_answers_right() -> None:
    thing: Any = TakesMore()
    vars(thing)["flag"] = True
    attribute_getters.learn([thing])
    made = recorded(checker(equals(attr("flag"), True)), {"x": thing})
    assert holds(made, {"x": thing})
    TakesMore.attribute_map = {"flag": "other"}
    try:
        vars(thing)["other"] = False
        assert not holds(made, {"x": thing})
    finally:
        TakesMore.attribute_map = {}


def test_a_hook_without_source_is_not_known() -> None:
    scope: dict[str, Any] = {"Any": Any}
    exec(inspect.getsource(config_class), scope)
    assert not known(scope["config_class"]())


def test_a_hook_whose_source_is_not_what_it_runs_is_not_known(tmp_path: Any, monkeypatch: Any) -> None:
    text = (
        "class Config:\n"
        "    attribute_map = {}\n"
        "    def __getattribute__(self, key):\n"
        "        if key != 'attribute_map' and key in super().__getattribute__('attribute_map'):\n"
        "            key = super().__getattribute__('attribute_map')[key]\n"
        "        return super().__getattribute__(key)\n"
    )
    (tmp_path / "edited_config.py").write_text(
        text.replace(" in super()", " not in super()").replace("[key]\n", ".get(key, key)\n")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_config

    (tmp_path / "edited_config.py").write_text(text)
    assert not known(edited_config.Config)
    del sys.modules["edited_config"]
