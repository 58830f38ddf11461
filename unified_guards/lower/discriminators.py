"""Chooses the discriminators of the cache entries of one function: the guards that tell each from the others.

A lookup asks one entry after the other, and all but one say no. Entries of one function share most of their guards. So
each entry gets a few discriminators, which are asked before its program (``Checker`` in ``csrc/check/checker.h``): an
entry that does not fit fails there, and the guards that all entries share are checked only by the entry that can still
fit. A discriminator is a guard that its entry has anyway, so asking it first can make no entry fit. Entry points:
:func:`discriminate`, :func:`shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from unified_guards import _C
from unified_guards.guards.expressions import Op
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test
from unified_guards.lower.rows import Program, lower
from unified_guards.simplify.linear import Integers
from unified_guards.simplify.ranges import ANY


class OneOfSeveral(Protocol):
    """An entry of a function that may have others.

    Attributes:
        checked: its guards.
        discriminators: those of them that are asked first.
    """

    checked: GuardSet
    discriminators: list[Guard]


E = TypeVar("E", bound=OneOfSeveral)

#: Telling one entry from very many others may take many guards; more than this are not worth asking.
MOST = 4
#: What csrc/check/discriminator.h has room for: the longest path, the most dimensions of a tensor.
DEEPEST, MOST_RANK, MOST_STEPS = 7, 8, 8
#: Numbers of a tensor, which are read from it.
_NUMBERS = frozenset({Access.TENSOR_SIZE, Access.TENSOR_STRIDE, Access.TENSOR_OFFSET})
#: Accesses that a discriminator may make: those that the table of operations says, and those that lower to one of them.
_ACCESSES = frozenset({Access.FRAME, Access.LOCAL, Access.GLOBALS}) | {
    access for access in Access if access.name in _C.OPS and _C.OP_TABLE[access.name]["can_be_asked_first"]
}
#: Constants of these types are never equal in two different guards: guards with equal constants are interned as one.
_INTERNED_TYPES = frozenset({int, str, float, bytes, bool, type(None)})
_SINGLETONS = {id(value): id(type(value)) for value in (None, True, False)}


def discriminate(new: E, others: Iterable[E], ask_first: Callable[[E, Guard], None]) -> None:
    """Gives ``new`` a discriminator against each of ``others``, and each of ``others`` one against ``new``.

    Args:
        new: an entry that has just been made.
        others: the entries that there are.
        ask_first: has the native checker of an entry ask a guard first; see :func:`program_of`.
    """
    for other in others:
        mine = [item for item in new.checked if item not in other.checked]
        theirs = [item for item in other.checked if item not in new.checked]
        for entry, own, foreign in ((new, mine, theirs), (other, theirs, mine)):
            chosen = _discriminator(entry, own, foreign)
            if chosen is not None:
                ask_first(entry, chosen)
                entry.discriminators.append(chosen)


def _discriminator(entry: OneOfSeveral, mine: list[Guard], theirs: list[Guard]) -> Guard | None:
    """One of ``mine`` that fails where ``theirs`` hold; None where ``entry`` asks such a guard first already."""
    found: dict[Source, list[Guard]] = {}
    for item in theirs:
        found.setdefault(item.source, []).append(item)

    def fails_there(item: Guard) -> bool:
        return any(_rejects(item, other) for other in found.get(item.source, ()))

    if len(entry.discriminators) >= MOST or any(fails_there(item) for item in entry.discriminators):
        return None
    quick = (item for item in mine if fails_there(item) and _is_quick(item))
    return min(quick, key=lambda item: item.source.depth, default=None)


def _is_quick(item: Guard) -> bool:
    if item.test is Test.EXPRESSION:
        return _is_quick_expression(item)
    if item.test is Test.TENSOR and len(item.params[0].sizes) > MOST_RANK:
        return False
    return _is_quick_source(item.source)


def _is_quick_source(source: Source) -> bool:
    return source.depth <= DEEPEST and all(step.access in _ACCESSES for step in source.steps())


def _is_quick_expression(item: Guard) -> bool:
    for source in item.sources:
        place = source.base if source.access in _NUMBERS and source.base is not None else source
        if not _is_quick_source(place):
            return False
    program = program_of(item)
    # One row less: the row that switches torch functions off is no step.
    return len(program.rows) - 1 <= MOST_STEPS and program.python_callbacks == 0


def _rejects(mine: Guard, theirs: Guard) -> bool:
    """Whether ``mine`` fails on values of the same source on which ``theirs`` holds."""
    rule = _RULES.get(mine.test)
    if rule is None or theirs.test not in _RULES:
        return False
    kinds = _kind(mine), _kind(theirs)
    if None not in kinds and kinds[0] != kinds[1]:
        return True
    if mine.test is theirs.test:
        return rule(mine, theirs)
    if theirs.test is Test.TYPE_IS:
        return mine.test is Test.EQUALS or mine.test is Test.IS  # passes for one value of all that the type has
    return {mine.test, theirs.test} == {Test.IS, Test.IS_NOT} and mine.params[0] == theirs.params[0]


def _kind(item: Guard) -> int | None:
    """The address of the one type whose values pass, where that is known."""
    if item.test is Test.TYPE_IS:
        kind: int = item.params[0]
        return kind
    if item.test is Test.TENSOR:
        return int(item.params[0].type_id)
    if item.test is Test.EQUALS:
        return id(type(item.params[0]))
    return _SINGLETONS.get(item.params[0]) if item.test is Test.IS else None


def _other_first(mine: Guard, theirs: Guard) -> bool:
    return bool(mine.params[0] != theirs.params[0])


def _other_value(mine: Guard, theirs: Guard) -> bool:
    return type(mine.params[0]) in _INTERNED_TYPES and type(theirs.params[0]) in _INTERNED_TYPES


def _other_membership(mine: Guard, theirs: Guard) -> bool:
    key, expected = mine.params
    return type(key) is str and type(theirs.params[0]) is str and theirs.params == (key, not expected)


def _other_tensor(mine: Guard, theirs: Guard) -> bool:
    one, other = mine.params[0], theirs.params[0]
    facts = (one.dtype, one.device_index, one.requires_grad, len(one.sizes))
    if facts != (other.dtype, other.device_index, other.requires_grad, len(other.sizes)):
        return True
    dims = zip(one.sizes + one.strides, other.sizes + other.strides, strict=True)
    return any(dim is not None and dim != seen for dim, seen in dims)


def _other_numbers(mine: Guard, theirs: Guard) -> bool:
    """Wrong for some numbers that are no integers: then the discriminator is asked in vain, which harms nothing."""
    first, second = mine.params[0], theirs.params[0]
    if {first.op, second.op} == {Op.EQ, Op.NE} and first.args == second.args:
        return True
    known = Integers(lambda source: ANY)
    one, other = known.constraint(first), known.constraint(second)
    return one is not None and other is not None and one.contradicts(other)


_RULES: dict[Test, Callable[[Guard, Guard], bool]] = {
    Test.TYPE_IS: _other_first,
    Test.IS: _other_first,
    Test.IS_NOT: lambda mine, theirs: False,
    Test.EQUALS: _other_value,
    Test.LENGTH: _other_first,
    Test.DICT_LENGTH: _other_first,
    Test.DICT_CONTAINS: _other_membership,
    Test.TENSOR: _other_tensor,
    Test.EXPRESSION: _other_numbers,
}


def program_of(item: Guard) -> Program:
    """The program that asks one guard."""
    return lower(GuardSet([(item, Provenance("dynamo"))]))


def shared(entry: OneOfSeveral, others: Iterable[OneOfSeveral]) -> int:
    """How many guards of ``entry`` all of ``others`` have too."""
    sets = [set(map(_content, other.checked)) for other in others]
    return sum(all(each in found for found in sets) for each in map(_content, entry.checked)) if sets else 0


def _content(item: Guard) -> object:
    """Equal for guards that say the same, also where each entry has objects of its own to say it with."""
    if item.test is Test.GLOBAL_STATE:
        state = item.params[0]
        return (item.test, state if isinstance(state, _C.GlobalState) else state.__getstate__())
    if item.test is Test.SAVED_HOOKS:
        return (item.test, repr(item.params[0]))
    return (item.sources, repr(item.params)) if item.test is Test.DIM_MARKING else item
