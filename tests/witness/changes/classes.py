"""Changes of classes: their attributes, bases, names, metaclasses and descriptors."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from typing import Any

from unified_guards.guards.ir import Access, Source

from ...guards import X, attr, equals, same
from ..building import Other, Thing
from .table import Step, change


def kind_of(**attributes: Any) -> type:
    return type("Kind", (Thing,), attributes)


@change
def an_attribute_of_a_class_is_set() -> Iterator[Step]:
    kind: Any = kind_of(flag=True)
    yield {"x": kind()}, [equals(attr("flag"), True)]
    kind.flag = False
    yield None
    kind.flag = True


@change
def an_attribute_of_a_base_is_set() -> Iterator[Step]:
    base: Any = kind_of(flag=True)
    kind: Any = type("Derived", (base,), {})
    yield {"x": kind()}, [equals(attr("flag"), True)]
    base.flag = False


@change
def an_instance_hides_an_attribute_of_its_class() -> Iterator[Step]:
    thing: Any = kind_of(flag=True)()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    del thing.flag


@change
def an_item_of_the_dict_of_a_class_is_set() -> Iterator[Step]:
    kind: Any = kind_of(flag=True)
    yield {"x": kind()}, [equals(X.child(Access.TYPE).child(Access.TYPE_DICT).child(Access.DICT_ITEM, "flag"), True)]
    kind.flag = False


@change
def the_bases_of_a_class_are_others() -> Iterator[Step]:
    one, two = kind_of(flag=True), kind_of(flag=False)
    kind: Any = type("Derived", (one,), {})
    yield {"x": kind()}, [equals(attr("flag"), True)]
    kind.__bases__ = (two,)
    yield None
    kind.__bases__ = (one,)


@change
def the_order_of_resolution_is_another() -> Iterator[Step]:
    one, two = kind_of(), kind_of()
    kind: Any = type("Derived", (one,), {})
    yield {"x": kind()}, [same(X.child(Access.TYPE).child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, 1), one)]
    kind.__bases__ = (two,)


@change
def a_property_is_put_before_an_attribute() -> Iterator[Step]:
    kind: Any = kind_of()
    thing: Any = kind(flag=True)
    yield {"x": thing}, [equals(attr("flag"), True)]
    kind.flag = property(lambda self: False)


@change
def a_getattribute_is_put_into_a_class() -> Iterator[Step]:
    kind: Any = kind_of()
    yield {"x": kind(flag=True)}, [equals(attr("flag"), True)]
    kind.__getattribute__ = lambda self, name: False


def renamed(owner: Any, name: str, shown: object, source: Source = X) -> Iterator[Step]:
    before = getattr(owner, name)
    yield {"x": shown}, [equals(attr(name, source), before)]
    setattr(owner, name, "another")
    yield None
    setattr(owner, name, before)


def function() -> None: ...


@change
def a_function_has_another_name() -> Iterator[Step]:
    return renamed(function, "__name__", function)


@change
def a_function_has_another_qualified_name() -> Iterator[Step]:
    return renamed(function, "__qualname__", function)


@change
def a_class_has_another_name() -> Iterator[Step]:
    return renamed(Other, "__name__", Other(), X.child(Access.TYPE))


@change
def a_class_has_another_qualified_name() -> Iterator[Step]:
    return renamed(Other, "__qualname__", Other(), X.child(Access.TYPE))


@change
def a_metaclass_answers_for_the_name_of_a_class() -> Iterator[Step]:
    meta = type("Meta", (type,), {})
    kind = meta("Kind", (), {})
    yield {"x": kind}, [equals(attr("__name__"), "Kind")]
    kind.__class__ = type("Another", (type,), {"__name__": property(lambda _: "Another")})
    yield None
    kind.__class__ = meta


@change
def a_member_of_an_enumeration_is_another() -> Iterator[Step]:
    colors: Any = enum.Enum("Color", ["RED", "BLUE"])
    red = colors.RED
    yield {"x": colors}, [same(attr("RED"), red)]
    type.__setattr__(colors, "RED", colors.BLUE)
    yield None
    type.__setattr__(colors, "RED", red)


@change
def a_class_is_asked_by_its_metaclass_from_now_on() -> Iterator[Step]:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return 2  # only asked for what a class lacks

    kind = Meta("Kind", (), {"size": 1})
    yield {"x": kind}, [equals(attr("size"), 1)]
    Meta.__getattribute__ = lambda cls, name: 3
    yield None
    del Meta.__getattribute__


@change
def a_class_loses_what_its_metaclass_then_gives() -> Iterator[Step]:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            return 2

    kind = Meta("Kind", (), {"size": 1})
    yield {"x": kind}, [equals(attr("size"), 1)]
    del kind.size
    yield None
    kind.size = 1


def with_attribute() -> tuple[type, type, object]:
    """A class, the class of one of its attributes, and that attribute."""
    inner = type("Inner", (), {})
    value = inner()
    return type("Kind", (), {"value": value}), inner, value


def becoming_a_descriptor(shown: object, inner: Any, value: object) -> Iterator[Step]:
    yield {"x": shown}, [same(attr("value"), value)]
    inner.__get__ = lambda *_: None
    yield None
    del inner.__get__


@change
def an_attribute_of_a_class_becomes_a_descriptor() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    return becoming_a_descriptor(kind, inner, value)


@change
def an_attribute_of_a_class_is_of_a_class_of_descriptors() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    yield {"x": kind}, [same(attr("value"), value)]
    value.__class__ = type("Descriptor", (), {"__get__": lambda *_: None})
    yield None
    value.__class__ = inner


@change
def an_attribute_of_a_class_is_given_by_a_descriptor_to_instances() -> Iterator[Step]:
    kind, inner, value = with_attribute()
    return becoming_a_descriptor(kind(), inner, value)


@change
def an_attribute_of_a_class_goes_before_one_of_the_instance() -> Iterator[Step]:
    kind, inner, _ = with_attribute()
    made: Any = kind()
    vars(made)["value"] = 1
    yield {"x": made}, [equals(attr("value"), 1)]
    inner.__get__ = lambda *_: 2
    inner.__set__ = lambda *_: None
    yield None
    del inner.__set__


@change
def what_a_cached_property_has_kept_is_replaced() -> Iterator[Step]:
    kind = type("Kind", (), {"value": functools.cached_property(lambda _: 1)})
    kind.value.__set_name__(kind, "value")
    made: Any = kind()
    vars(made)["value"] = 1
    yield {"x": made}, [equals(attr("value"), 1)]
    vars(made)["value"] = 2
    yield None
    vars(made)["value"] = 1
