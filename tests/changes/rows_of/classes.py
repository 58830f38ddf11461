"""Rows of classes and their descriptors."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo

from ..rows import PYTHON, python
from .objects import extra, one, put


def class_row(name: str, change: Callable[[Any], Any], undo: Callable[[Any], Any], function: Any = one) -> None:
    """Classes of the row's own: a metaclass, a base, a class, and an object of it."""

    def row() -> Iterator[Any]:
        class Meta(type):
            pass

        class Base(metaclass=Meta):
            value = 1

            def method(self) -> int:
                return 1

        class Derived(Base):
            pass

        class Other(Base):
            value = 7

            def method(self) -> int:
                return 7

        made = Derived()
        kinds = types.SimpleNamespace(Meta=Meta, Base=Base, Derived=Derived, Other=Other, made=made)
        yield function, [torch.ones(2), made]
        change(kinds)
        yield
        undo(kinds)
        yield

    PYTHON[name] = row


def called(x: Any, made: Any) -> Any:
    return x + made.method()


def of_type(x: Any, made: Any) -> Any:
    return x + type(made).value


def clear(kind: Any, name: str) -> None:
    delattr(kind, name)


class_row("class_attribute_of_base", lambda k: put(k.Base, value=2), lambda k: put(k.Base, value=1))
class_row("class_attribute_shadowed", lambda k: put(k.Derived, value=2), lambda k: clear(k.Derived, "value"))
class_row("class_attribute_by_type", lambda k: put(k.Derived, value=2), lambda k: clear(k.Derived, "value"), of_type)
class_row("class_attribute_by_instance", lambda k: put(k.made, value=2), lambda k: clear(k.made, "value"))
class_row("class_attribute_deleted", lambda k: clear(k.Base, "value"), lambda k: put(k.Base, value=1))
class_row(
    "metaclass_property",
    lambda k: put(k.Meta, value=property(lambda cls: 3)),
    lambda k: clear(k.Meta, "value"),
    of_type,
)
class_row(
    "metaclass_attribute",
    lambda k: put(k.Meta, extra=1),
    lambda k: clear(k.Meta, "extra"),
    lambda x, o: extra(x, type(o)),
)
class_row(
    "class_gains_property", lambda k: put(k.Derived, value=property(lambda o: 4)), lambda k: clear(k.Derived, "value")
)
class_row("class_gains_absent_name", lambda k: put(k.Base, extra=1), lambda k: clear(k.Base, "extra"), extra)
class_row(
    "class_gains_getattr",
    lambda k: put(k.Base, __getattr__=lambda o, n: 1),
    lambda k: clear(k.Base, "__getattr__"),
    extra,
)
class_row("class_assigned", lambda k: put(k.made, __class__=k.Other), lambda k: put(k.made, __class__=k.Derived))
class_row(
    "bases_assigned", lambda k: put(k.Derived, __bases__=(k.Other,)), lambda k: put(k.Derived, __bases__=(k.Base,))
)
class_row("method_patched", lambda k: put(k.Derived, method=lambda o: 3), lambda k: clear(k.Derived, "method"), called)
class_row("method_on_instance", lambda k: put(k.made, method=lambda: 3), lambda k: clear(k.made, "method"), called)
class_row(
    "method_by_class", lambda k: put(k.made, __class__=k.Other), lambda k: put(k.made, __class__=k.Derived), called
)


@python
def property_replaced() -> Iterator[Any]:
    class Has:
        value = property(lambda self: self.hidden)

    made = Has()
    made.hidden = 1
    first = Has.value
    yield one, [torch.ones(2), made]
    Has.value = property(lambda self: self.hidden + 1)
    yield
    Has.value = first
    yield


@python
def config_with_getattr() -> Iterator[Any]:
    class Config:
        def __init__(self) -> None:
            self.store = {"value": 1}

        def __getattr__(self, name: str) -> Any:
            try:
                return self.__dict__["store"][name]
            except KeyError:
                raise AttributeError(name) from None

    made = Config()
    yield one, [torch.ones(2), made]
    made.store["value"] = 2
    yield
    made.store["value"] = 1
    yield
