"""An object of the user's changes: attributes, types, descriptors, what is absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo

from ..harness import assert_same, ones, static
from .values import Config, FrozenOptions, Options, OtherPlain, Plain, Slotted, negate


class ChangedObjects:
    """User objects: attributes, types, presence of attributes, descriptors."""

    @staticmethod
    def scaled(x: torch.Tensor, options: Any) -> torch.Tensor:
        return x * options.scale

    @pytest.mark.parametrize("make", [Options, FrozenOptions, Slotted, lambda scale: Config(scale=scale)])
    def test_attribute(self, make: Callable[[Any], Any]) -> None:
        watched = static(self.scaled)
        watched.expect(1, ones(), make(2))
        watched.expect(1, ones(), make(2))
        watched.expect(2, ones(), make(3))
        watched.expect(3, ones(), make(3.0))
        watched.expect(4, ones(), make(ones()))
        watched.expect(4, ones(), make(2))

    def test_attribute_changed_in_place(self) -> None:
        watched = static(self.scaled)
        options = Options(2)
        watched.expect(1, ones(), options)
        options.scale = 3
        watched.expect(2, ones(), options)
        options.name = "not read"
        watched.expect(2, ones(), options)

    def test_slot_changed_in_place(self) -> None:
        watched = static(self.scaled)
        slotted = Slotted(2)
        watched.expect(1, ones(), slotted)
        slotted.scale = 3
        watched.expect(2, ones(), slotted)

    def test_nested_attribute(self) -> None:
        watched = static(lambda x, options: x * options.nested.nested.scale)
        watched.expect(1, ones(), Options(nested=Options(nested=Options(2))))
        watched.expect(1, ones(), Options(nested=Options(nested=Options(2))))
        watched.expect(2, ones(), Options(nested=Options(nested=Options(3))))

    def test_config_through_getattr(self) -> None:
        def function(x: torch.Tensor, config: Config) -> torch.Tensor:
            return x * config.scale if config.kind == "mul" else x + config.scale

        watched = static(function)
        config = Config(scale=2, kind="mul")
        watched.expect(1, ones(), config)
        config._values["kind"] = "add"
        watched.expect(2, ones(), config)
        config._values["scale"] = 5
        watched.expect(3, ones(), config)
        config.scale = 7  # an instance attribute now shadows __getattr__: torch does not notice
        assert_same(watched.compiled(ones(), config), ones() + 5)
        assert watched.graphs == 3

    def test_type_of_object(self) -> None:
        watched = static(self.scaled)
        watched.expect(1, ones(), Plain(scale=2))
        watched.expect(2, ones(), OtherPlain(scale=2))
        watched.expect(2, ones(), Plain(scale=2))

    def test_isinstance(self) -> None:
        watched = static(lambda x, value: x * 2 if isinstance(value, OtherPlain) else x * 3)
        watched.expect(1, ones(), Plain())
        watched.expect(2, ones(), OtherPlain())
        watched.expect(2, ones(), Plain())

    def test_class_of_an_instance_replaced(self) -> None:
        watched = static(lambda x, value: x * len(value.kind))
        value = Plain()
        watched.expect(1, ones(), value)
        value.__class__ = OtherPlain
        watched.expect(2, ones(), value)

    def test_class_attribute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x, value: x * len(value.kind))
        value = Plain()
        watched.expect(1, ones(), value)
        monkeypatch.setattr(Plain, "kind", "another")
        watched.expect(2, ones(), value)
        value.kind = "of the instance"
        watched.expect(3, ones(), value)

    def test_property(self) -> None:
        watched = static(lambda x, value: x * value.doubled)
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        value.scale = 3
        watched.expect(2, ones(), value)
        watched.expect(2, ones(), Plain(scale=2))

    def test_property_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x, value: x * value.doubled)
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        monkeypatch.setattr(Plain, "doubled", property(lambda self: self.scale * 20))
        watched.expect(2, ones(), value)

    def test_method_replaced_on_the_instance(self) -> None:
        watched = static(lambda x, value: value.apply(x))
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        value.apply = negate
        watched.expect(2, ones(), value)

    def test_method_replaced_on_the_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x, value: value.apply(x))
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        monkeypatch.setattr(Plain, "apply", lambda self, x: -x)
        assert_same(watched.compiled(ones(), value), ones() * 2)  # torch does not notice
        assert watched.graphs == 1

    def test_hasattr(self) -> None:
        watched = static(lambda x, value: x * 2 if hasattr(value, "extra") else x * 3)
        watched.expect(1, ones(), Plain())
        watched.expect(2, ones(), Plain(extra=1))
        watched.expect(2, ones(), Plain())
        value = Plain(extra=1)
        watched.expect(2, ones(), value)
        del value.extra
        watched.expect(2, ones(), value)

    def test_hasattr_of_a_class_attribute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = static(lambda x, value: x * 2 if hasattr(value, "added_later") else x * 3)
        value = Plain()
        watched.expect(1, ones(), value)
        monkeypatch.setattr(Plain, "added_later", 1, raising=False)
        watched.expect(2, ones(), value)

    def test_attribute_deleted(self) -> None:
        watched = static(lambda x, value: x * getattr(value, "scale", 7))
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        del value.scale
        watched.expect(2, ones(), value)

    def test_instance_dict_replaced(self) -> None:
        watched = static(self.scaled)
        value = Plain(scale=2)
        watched.expect(1, ones(), value)
        value.__dict__ = {"scale": 3}
        watched.expect(2, ones(), value)
        value.__dict__ = {"scale": 2}
        watched.expect(2, ones(), value)

    def test_attribute_that_changes_on_every_call(self) -> None:
        watched = static(lambda x, value: x * value.scale)
        value = Plain(scale=2)
        for step in range(20):
            value.unread = step
            watched.expect(1, ones(), value)

    def test_identity_of_an_object(self) -> None:
        sentinel = Plain()
        watched = static(lambda x, value: x * 2 if value is sentinel else x * 3)
        other = Plain()
        watched.expect(1, ones(), sentinel)
        watched.expect(1, ones(), sentinel)
        watched.expect(2, ones(), other)
        # "is not sentinel" leaves no guard, so the newer graph takes every object: torch does not notice
        assert_same(watched.compiled(ones(), sentinel), ones() * 3)
        assert watched.graphs == 2

    def test_one_object_by_two_names(self) -> None:
        def function(x: torch.Tensor, first: list, second: list) -> torch.Tensor:
            return x * 2 + first[0] if first is second else x * 3 + first[0] + second[0]

        watched = static(function)
        items = [1]
        watched.expect(1, ones(), items, items)
        watched.expect(2, ones(), [1], [1])
        watched.expect(2, ones(), items, [1])
