"""What the rules of this folder read (:class:`Known`) and give (:class:`Extra`), and what several of them ask."""

from __future__ import annotations

import contextlib
import copy
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from unified_guards import _C
from unified_guards.dynamo.strict.reads import Reads, can_change
from unified_guards.guards.accesses import follow
from unified_guards.guards.ir import Access, Guard, GuardSet, Source, Test, guard
from unified_guards.guards.names import name_at

#: The maker of the guards that these rules add, in their provenance.
MAKER = "strict"


class Extra(NamedTuple):
    """A guard that torch does not have, the source behind whose guards it is checked, and why it is there."""

    guard: Guard
    place: Source
    why: str


class Live:
    """Finds the object that a source leads to now. Each step of a path is taken once."""

    def __init__(self, f_locals: dict[str, Any]) -> None:
        self.values: dict[Source, Any] = {Source.frame(): f_locals}

    def __call__(self, source: Source) -> Any:
        """The object; None, too, where there is none."""
        if source not in self.values:
            found = None
            with contextlib.suppress(Exception):  # whatever code of the user's raises on the way
                found = follow(source, self(source.base)) if source.base is not None else None
            self.values[source] = found
        return self.values[source]


class Dims(NamedTuple):
    """Where a tensor is in its memory, as far as a graph has made constants of it; None for a symbol."""

    sizes: tuple[int | None, ...]
    strides: tuple[int | None, ...]
    offset: int | None


class Layout(NamedTuple):
    """The dims of an input, and of the tensor that it is a view of."""

    own: Dims
    base: Dims | None


class Call(NamedTuple):
    """A call of a backend.

    Attributes:
        inputs: torch's names of the sources of the graph's inputs.
        cached: whether AOTAutograd had the result in its cache.
        layouts: by those names, what of their memory the graph has made constants.
        reads_offsets: whether what was traced depends on the offset of an input by itself.
    """

    inputs: list[str | None]
    cached: bool
    layouts: Mapping[str | None, Layout] = types.MappingProxyType({})
    reads_offsets: bool = False

    def layout(self, name: str | None) -> Layout | None:
        """What is constant of an input's memory; None where all is, as in a cached result: it was not traced now, and
        torch guards only what is traced."""
        return None if self.cached else self.layouts.get(name)


class Known(NamedTuple):
    """What a rule can read."""

    guard_set: GuardSet
    live: Live
    code: types.CodeType  # of the frame
    f_globals: dict[str, Any]  # of the frame
    codes: tuple[types.CodeType, ...]  # that of the frame, and those that Dynamo inlined in it
    traced: frozenset[int]  # addresses of the latter
    tensors: dict[str, Any]  # that torch guards, by torch's names of their sources
    call: Call | None
    mutated: list[bool] | None  # of the inputs of `call`, as far as is known; None when none is
    reads: Reads  # what Dynamo looked up
    resolve: Any  # from a source of torch to the object
    done: set[tuple[Any, ...]]  # what of classes is guarded by now, shared by the rules

    def first(self, *what: Any) -> bool:
        """True when it is asked this for the first time, False ever after."""
        known = what in self.done
        self.done.add(what)
        return not known


#: What wraps a function in a class, and the attribute that has it.
WRAPPERS: dict[type, str] = {classmethod: "__func__", staticmethod: "__func__", property: "fget"}


def kind_of(item: Guard) -> type | None:
    """The class that its object has, as far as a guard says; None where it does not say."""
    if item.test is Test.TYPE_IS:
        found = _C.object_at(item.params[0])
        return found if isinstance(found, type) else None
    return type(_C.object_at(item.params[0])) if item.test is Test.IS else None


def mro_of(kind: type) -> tuple[type, ...]:
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


def own_of(kind: type) -> Mapping[str, Any]:
    found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return found


def same_object(source: Source, value: Any) -> Guard:
    return guard(Test.IS_TARGET, (source,), (weakref.ref(value), name_at(id(value))))


LEAVES = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), type, torch.dtype, torch.device})
CONTAINERS = (tuple, list, set, frozenset)


def parts(value: Any) -> Iterable[Any] | None:
    """What a container holds; None where this is no container that is compared part by part."""
    kind = type(value)
    if kind is dict:
        return (*value.keys(), *value.values())
    if kind is slice:
        return (value.start, value.stop, value.step)
    return tuple.__iter__(value) if isinstance(value, tuple) else value if kind in CONTAINERS else None


def is_constant(value: Any) -> bool:
    held = parts(value)
    return type(value) in LEAVES if held is None else all(map(is_constant, held))


def same_value(source: Source, value: Any) -> Guard:
    """That the value is still there: the same constant to the last bit, else the same object.

    Where an object cannot be referred to weakly, only that one of the same type is there.
    """
    if is_constant(value):
        return guard(Test.DEEP_EQUALS, (source,), (copy.deepcopy(value),))
    with contextlib.suppress(TypeError):
        return same_object(source, value)
    return guard(Test.TYPE_IS, (source,), (id(type(value)), name_at(id(type(value)))))


def order_of(kind: type, source: Source, place: Source, known: Known) -> Iterator[Extra]:
    """That the classes that are asked for an attribute of ``kind`` are the same, in the same order.

    Every class that is not immutable may be given other bases. Its order begins with the class itself and ends with
    ``object``, unless a metaclass says otherwise: these two are not guarded.
    """
    mro, plain = mro_of(kind), type(kind).mro is type.mro
    if not can_change(kind) or (plain and len(mro) == 2) or not known.first("mro", kind):
        return
    below = source.child(Access.TYPE_MRO)
    yield Extra(guard(Test.LENGTH, (below,), (len(mro), False)), place, "the bases of a class")
    for at, each in list(enumerate(mro))[1:-1] if plain else enumerate(mro):
        item = below.child(Access.TUPLE_ITEM, at)
        same = guard(Test.IS, (item,), (id(each), name_at(id(each))))
        yield Extra(same_object(item, each) if can_change(each) else same, place, "the bases of a class")
