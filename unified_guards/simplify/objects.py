"""Rules about one object: what a guard on it implies, and what two sources of the same object have in common."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from unified_guards.guards.expressions import read
from unified_guards.guards.ir import Access, Guard, Source, Test, guard, with_bases
from unified_guards.simplify.rewrite import with_leaves
from unified_guards.simplify.work import Step, Work

_NONE = id(None)
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


def _keeps_its_type(value: object) -> bool:
    """Whether nothing can assign to the object's ``__class__``."""
    kind = type(value)
    return bool(kind.__flags__ & _IMMUTABLE_TYPE) and not issubclass(kind, types.ModuleType)


def of_value(strong: Guard, weak: Guard) -> bool:
    """What equality implies: the exact type, and what follows from the value where that cannot change."""
    value = strong.params[0]
    if weak.test is Test.EQUALS:  # asks less than the bits of a number, or than what is in a container
        return _is_said_by_more(strong, weak.params[0])
    if weak.test is Test.FLOAT_NAN or weak.test is Test.COMPLEX_NAN:
        kind = float if weak.test is Test.FLOAT_NAN else complex
        return strong.test is Test.SAME_BITS and type(value) is kind and value != value  # noqa: PLR0124 (a NaN)
    if weak.test is Test.LENGTH:
        return type(value) in (tuple, str, bytes) and len(value) == weak.params[0]
    if weak.test is Test.IS_NOT:
        return weak.params[0] == _NONE and value is not None
    return weak.test is Test.TYPE_IS and weak.params[0] == id(type(value)) and _keeps_its_type(value)


def _is_said_by_more(strong: Guard, value: object) -> bool:
    """Whether a guard that is stricter than ``==`` implies ``== value``.

    Not where a part of the value is equal to nothing but itself, as NaN is: then ``==`` asks for the very object.
    """
    if strong.test is Test.SAME_BITS:
        return type(value) is type(strong.params[0]) and value == strong.params[0]
    return strong.test is Test.DEEP_EQUALS and value is strong.params[0] and _equals_its_like(value)


def _equals_its_like(value: Any) -> bool:
    """Whether an equal value is as good: there is no NaN in it, and no object with an ``__eq__`` of its own."""
    kind = type(value)
    if kind in (int, float, complex, bool, str, bytes, type(None)):
        return bool(value == value)  # noqa: PLR0124
    if kind in (tuple, list, set, frozenset):
        return all(map(_equals_its_like, value))
    if kind is dict:
        return all(_equals_its_like(key) and _equals_its_like(item) for key, item in value.items())
    return kind is slice and all(map(_equals_its_like, (value.start, value.stop, value.step)))


def of_keys(strong: Guard, weak: Guard) -> bool:
    """What the keys of an exact dict imply. Only exact strings are compared as the dict would."""
    keys = strong.params[0]
    if weak.test is Test.DICT_LENGTH:
        return bool(weak.params[0] == len(keys))
    if weak.test is Test.DICT_CONTAINS:
        known = all(type(key) is str for key in (*keys, weak.params[0]))
        return known and (weak.params[0] in keys) is bool(weak.params[1])
    return _of_type_of(dict, weak)


def _of_type_of(kind: type, weak: Guard) -> bool:
    if weak.test is Test.IS_NOT:
        return weak.params[0] == _NONE and kind is not type(None)
    return weak.test is Test.TYPE_IS and weak.params[0] == id(kind)


#: Types by the address of an object. These objects live and keep their type for ever; others may not.
_SINGLETONS = {id(value): type(value) for value in (None, True, False, ..., NotImplemented)}


def _of_identity(strong: Guard, weak: Guard) -> bool:
    address = strong.params[0]
    if weak.test is Test.IS_NOT:
        return bool(weak.params[0] != address)
    if weak.test is Test.EQUALS:
        return bool(id(weak.params[0]) == address)
    return address in _SINGLETONS and weak.test is Test.TYPE_IS and bool(weak.params[0] == id(_SINGLETONS[address]))


def of_tensor(strong: Guard, weak: Guard) -> bool:
    if weak.test is Test.IS_NOT:
        return bool(weak.params[0] == _NONE)
    return weak.test is Test.TYPE_IS and bool(weak.params[0] == strong.params[0].type_id)


def of_type(strong: Guard, weak: Guard) -> bool:
    return weak.test is Test.IS_NOT and weak.params[0] == _NONE and strong.params[0] != id(type(None))


def implied(implies: Callable[[Guard, Guard], bool], *tests: Test) -> Callable[[Work], Iterator[Step]]:
    """The rule that a guard that asks one of ``tests`` implies others on the same source."""

    def rule(work: Work) -> Iterator[Step]:
        for strong in work.all(*tests):
            if len(work.on[strong.source]) > 1 and work.has(strong):
                yield from (
                    (weak, None) for weak in work.about(strong.source) if weak is not strong and implies(strong, weak)
                )

    return rule


def identity_implies(work: Work) -> Iterator[Step]:
    """An identity implies what is known of its object; two identities with one object make two sources one."""
    yield from implied(_of_identity, Test.IS)(work)
    for item in work.all(Test.SAME):
        first, second = (
            {each.params[0] for each in work.about(source) if each.test is Test.IS} for source in item.sources
        )
        if first & second:
            yield item, None


def reading_implies(work: Work) -> Iterator[Step]:
    """What is read from a dict by its key is in the dict."""
    wanted = [item for item in work.all(Test.DICT_CONTAINS) if item.params[1] and type(item.params[0]) is str]
    if not wanted:
        return
    read_now = _sources_of(item for item in work.left.values() if item.test is not Test.DICT_CONTAINS)
    for item in wanted:
        if item.source.child(Access.DICT_ITEM, item.params[0]) in read_now:
            yield item, None


def existence_is_implied(work: Work) -> Iterator[Step]:
    """``x exists`` holds when another guard reads ``x`` or something below it."""
    wanted = work.all(Test.EXISTS)
    if not wanted:
        return
    read_now = _sources_of(item for item in work.left.values() if item.test is not Test.EXISTS)
    read_now |= with_bases(item.source.base for item in wanted if item.source.base is not None)
    for item in wanted:
        if item.source in read_now:
            yield item, None


def _sources_of(guards: Iterable[Guard]) -> set[Source]:
    return with_bases(source for item in guards for source in item.sources)


# -- aliases -----------------------------------------------------------------------------------------------------------

#: Accesses that run no user code: reading twice gives the same object twice.
_ACCESSES_WITHOUT_CODE = frozenset(
    {
        Access.FRAME, Access.LOCAL, Access.GLOBALS, Access.DICT_ITEM, Access.CONSTANT, Access.LIST_ITEM,
        Access.TUPLE_ITEM, Access.GENERIC_DICT, Access.TYPE, Access.TYPE_DICT, Access.TYPE_MRO, Access.FUNC_DEFAULTS,
        Access.FUNC_KWDEFAULTS, Access.FUNC_CODE, Access.FUNC_CLOSURE, Access.GRAD, Access.TENSOR_SIZE,
        Access.TENSOR_STRIDE, Access.TENSOR_OFFSET, Access.DICT_KEY_AT, Access.DICT_VALUE_AT,
    }
)  # fmt: skip
#: Tests that run no user code, whatever the object is.
_TESTS_WITHOUT_CODE = frozenset(
    {
        Test.EXISTS, Test.TYPE_IS, Test.IS, Test.IS_NOT, Test.IS_TARGET, Test.SAME_BITS, Test.DICT_LENGTH,
        Test.FLOAT_NAN, Test.COMPLEX_NAN, Test.TENSOR, Test.TUPLE_ITER_LEN, Test.RANGE_ITER, Test.DICT_VERSION,
    }
)  # fmt: skip
#: Aliases of aliases are followed this far: two that are parts of each other would go on for ever.
_HOPS = 8


def _runs_no_code(item: Guard) -> bool:
    if item.test is Test.EQUALS:
        return type(item.params[0]) in (int, float, complex, bool, str, bytes)
    if item.test is Test.DICT_CONTAINS:
        return type(item.params[0]) is str
    return item.test in _TESTS_WITHOUT_CODE


class _Aliases:
    """The sources that are one object, because a guard says so, and one source that stands for them."""

    def __init__(self) -> None:
        self.leader: dict[Source, Source] = {}
        self.known: dict[Source, Source] = {}
        self.without_code: dict[Source, bool] = {}

    def runs_no_code(self, source: Source) -> bool:
        found = self.without_code.get(source)
        if found is None:
            found = source.access in _ACCESSES_WITHOUT_CODE and (source.base is None or self.runs_no_code(source.base))
            self.without_code[source] = found
        return found

    def unite(self, one: Source, other: Source) -> bool:
        """Notes that both are the same object; says whether that is news."""
        first, second = self.of(one), self.of(other)
        if first is second:
            return False
        if first.depth > second.depth:
            first, second = second, first
        self.leader[second] = first
        self.known.clear()
        return True

    def of(self, source: Source) -> Source:
        """The source that stands for this one."""
        found = self.known.get(source)
        if found is None:
            found = source
            for _ in range(_HOPS):
                before = found
                if found.base is not None:
                    base = self.of(found.base)
                    found = found if base is found.base else base.child(found.access, found.key)
                found = self.leader.get(found, found)
                if found is before:
                    break
            self.known[source] = found
        return found


def same_object_was_checked(work: Work) -> Iterator[Step]:
    """Where two sources lead to one object, a guard below one source need not be checked below the other, too."""
    aliases = _Aliases()
    for item in work.all(Test.SAME):
        first, second = item.sources
        if first is second or not (aliases.runs_no_code(first) and aliases.runs_no_code(second)):
            continue
        if not aliases.unite(first, second) and min(work.readers[first], work.readers[second]) > 1:
            yield item, None
    if not aliases.leader:
        return
    for item in list(work.left.values()):
        if item.test is Test.EXPRESSION:
            places = {source: aliases.of(source) for source in item.sources if aliases.runs_no_code(source)}
            made = with_leaves(item, {source: read(to) for source, to in places.items() if to is not source})
            if made is not item:
                yield item, made
        elif len(item.sources) == 1 and aliases.runs_no_code(item.source) and _runs_no_code(item):
            place = aliases.of(item.source)
            if place is not item.source and work.has(guard(item.test, (place,), item.params)):
                yield item, None
