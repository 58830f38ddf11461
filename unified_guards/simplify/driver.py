"""Rewrites a :class:`GuardSet` into a smaller one with the same verdict on every frame.

:data:`RULES` is the table of what is known to be superfluous; each rule names itself in what it removes, so that a
report can say why. Exact duplicates are already one guard in a GuardSet; who asked for them is in its provenance.

Why it is sound: rules take one step at a time, and each step removes a guard that follows from those that are still
there at that moment, or replaces it by one that means the same beside them. So no two guards can vouch for each other
and both go. A guard that follows from others but is the last to read something stays: what is missing has to be missed.
Entry point: :func:`simplify`.
"""

from __future__ import annotations

import collections
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from unified_guards.guards.expressions import Op, Term, const, evaluate, expression, read, replaced, term
from unified_guards.guards.ir import Access, Guard, GuardSet, Source, TensorFacts, Test, guard, with_bases
from unified_guards.simplify.integers import ANY, Constraint, Form, Integer, Integers, meet, truth

#: Seconds that one compilation may spend here. 5,000 shape guards take a third of it, on a slow machine.
BUDGET_S = 1.0


class Removed(NamedTuple):
    """A guard that is not checked, and the rule that says why it need not be.

    ``becomes`` is the guard that says the same in its place, if one does.
    """

    guard: Guard
    rule: str
    becomes: Guard | None = None

    def __str__(self) -> str:
        if self.becomes is None:
            return f"removed by {self.rule!r}: {self.guard}"
        return f"rewritten by {self.rule!r}: {self.guard} -> {self.becomes}"


class Simplified(NamedTuple):
    """What :func:`simplify` made of a set.

    Attributes:
        guard_set: the guards that need checking.
        removed: those that do not, in the order in which the rules took them.
        stopped: where the time ran out, or the stack; None when every rule was applied to everything.
    """

    guard_set: GuardSet
    removed: list[Removed]
    stopped: str | None = None


class _OutOfTime(Exception):
    pass


#: What a rule yields: a guard, and what takes its place.
Step = tuple[Guard, Guard | None]


class _Work:
    """The guards that are left, and what the rules want to know of them."""

    def __init__(self, guard_set: GuardSet, budget: float) -> None:
        self.began = time.perf_counter()
        self.budget = budget
        self.removed: list[Removed] = []
        self.left: dict[Guard, Guard] = {item: item for item in guard_set}  # what each guard of the set is by now
        self.origin: dict[Guard, Guard] = {}  # of one that took another's place
        self.merged: dict[Guard, Guard] = {}  # where one says what another, still there, says
        self.by_test: dict[Test, list[Guard]] = {}
        self.on: dict[Source, list[Guard]] = {}
        for item in guard_set:
            self.by_test.setdefault(item.test, []).append(item)
            if len(item.sources) == 1:
                self.on.setdefault(item.sources[0], []).append(item)
        self._readers: collections.Counter[Source] | None = None
        self.integers = Integers(self.integer)
        self.used: set[Guard] = set()  # guards that conclusions about others were drawn from

    # -- guards ----------------------------------------------------------------------------------------------------

    def has(self, item: Guard) -> bool:
        """Whether a guard is there, of the set or in place of one."""
        return self.left.get(self.origin.get(item, item)) is item

    def all(self, *tests: Test) -> list[Guard]:
        """The guards that ask one of ``tests``."""
        return [item for test in tests for item in self.by_test.get(test, ()) if item in self.left]

    def about(self, source: Source) -> Iterator[Guard]:
        """The guards on just this source."""
        return (item for item in self.on.get(source, ()) if item in self.left)

    def expressions(self) -> Iterator[Guard]:
        """The expressions as they are by now, for as long as there is time."""
        for item in self.by_test.get(Test.EXPRESSION, ()):
            self.watch_the_clock()
            found = self.left.get(item)
            if found is not None:
                yield found

    def watch_the_clock(self) -> None:
        if time.perf_counter() - self.began >= self.budget:
            raise _OutOfTime

    def take(self, rule: str, item: Guard, becomes: Guard | None) -> None:
        """Takes one step."""
        origin = self.origin.get(item, item)
        self.removed.append(Removed(item, rule, becomes))
        if becomes is None:
            del self.left[origin]
        elif self.has(becomes):
            del self.left[origin]
            self.merged[origin] = self.origin.get(becomes, becomes)
        else:
            self.left[origin] = becomes
            self.origin[becomes] = origin
        if self._readers is not None:
            self._readers.subtract(item.sources)
            if origin in self.left:
                self._readers.update(self.left[origin].sources)

    def result(self, guard_set: GuardSet, stopped: str | None) -> Simplified:
        if not self.removed:
            return Simplified(guard_set, [], stopped)
        kept = ((self._now(item), maker) for item, maker in guard_set.entries())
        return Simplified(GuardSet((item, maker) for item, maker in kept if item is not None), self.removed, stopped)

    def _now(self, item: Guard) -> Guard | None:
        while item in self.merged:
            item = self.merged[item]
        return self.left.get(item)

    # -- sources ---------------------------------------------------------------------------------------------------

    @property
    def readers(self) -> collections.Counter[Source]:
        """How many guards read a source."""
        if self._readers is None:
            self._readers = collections.Counter(source for item in self.left.values() for source in item.sources)
        return self._readers

    def vouched(self, source: Source) -> bool:
        """Whether a tensor guard compares this size: it is there then, and an exact int."""
        facts = self.tensor(source) if source.access is Access.TENSOR_SIZE else None
        return facts is not None and source.key < len(facts.sizes) and facts.sizes[source.key] is not None

    def tensor(self, source: Source) -> TensorFacts | None:
        """What is guarded of the tensor of which ``source`` is a number."""
        if source.access not in _NUMBERS or source.base is None:
            return None
        return next((item.params[0] for item in self.about(source.base) if item.test is Test.TENSOR), None)

    def may_go(self, item: Guard, becomes: Guard | None = None) -> bool:
        """Whether everything that an expression reads is read without it, too."""
        stays = () if becomes is None else becomes.sources
        read_here = item.params[0].sources
        return all(source in stays or self.readers[source] > 1 or self.vouched(source) for source in read_here)

    def integer(self, source: Source) -> Integer | None:
        """What the value of a source is by nature; None when it may be no exact int."""
        if source.access in _NUMBERS:
            return _NUMBERS[source.access]
        for item in self.about(source):
            if item.test is Test.TYPE_IS and item.params[0] == id(int):
                return ANY
            if item.test is Test.EQUALS and type(item.params[0]) is int:
                return ANY
        return None


_SIZE = Integer(0, 2**63 - 1, 1, 0)
#: Numbers of a tensor: exact ints of 64 bits, if there.
_NUMBERS = {
    Access.TENSOR_SIZE: _SIZE,
    Access.TENSOR_STRIDE: Integer(-(2**63), 2**63 - 1, 1, 0),
    Access.TENSOR_OFFSET: _SIZE,
}


# -- guards on one object ----------------------------------------------------------------------------------------------

_NONE = id(None)
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


def _keeps_its_type(value: object) -> bool:
    """Whether nothing can assign to the object's ``__class__``."""
    kind = type(value)
    return bool(kind.__flags__ & _IMMUTABLE_TYPE) and not issubclass(kind, types.ModuleType)


def _of_value(strong: Guard, weak: Guard) -> bool:
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
    """Whether a guard that tells more values apart than ``==`` says that it is this one.

    Not where a part is equal to nothing but itself: then ``==`` asks for the very object.
    """
    if strong.test is Test.SAME_BITS:
        return type(value) is type(strong.params[0]) and value == strong.params[0]
    return strong.test is Test.DEEP_EQUALS and value is strong.params[0] and _equals_its_like(value)


def _equals_its_like(value: Any) -> bool:
    """Whether this has no NaN in it, and nothing that decides for itself what it is equal to."""
    kind = type(value)
    if kind in (int, float, complex, bool, str, bytes, type(None)):
        return bool(value == value)  # noqa: PLR0124
    if kind in (tuple, list, set, frozenset):
        return all(map(_equals_its_like, value))
    if kind is dict:
        return all(_equals_its_like(key) and _equals_its_like(item) for key, item in value.items())
    return kind is slice and all(map(_equals_its_like, (value.start, value.stop, value.step)))


def _of_keys(strong: Guard, weak: Guard) -> bool:
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


#: By address: these live for ever and are of their type for ever. Another object at a known address may be of any type.
_SINGLETONS = {id(value): type(value) for value in (None, True, False, ..., NotImplemented)}


def _of_identity(strong: Guard, weak: Guard) -> bool:
    address = strong.params[0]
    if weak.test is Test.IS_NOT:
        return bool(weak.params[0] != address)
    if weak.test is Test.EQUALS:
        return bool(id(weak.params[0]) == address)
    return address in _SINGLETONS and weak.test is Test.TYPE_IS and bool(weak.params[0] == id(_SINGLETONS[address]))


def _of_tensor(strong: Guard, weak: Guard) -> bool:
    if weak.test is Test.IS_NOT:
        return bool(weak.params[0] == _NONE)
    return weak.test is Test.TYPE_IS and bool(weak.params[0] == strong.params[0].type_id)


def _of_type(strong: Guard, weak: Guard) -> bool:
    return weak.test is Test.IS_NOT and weak.params[0] == _NONE and strong.params[0] != id(type(None))


def _implied(implies: Callable[[Guard, Guard], bool], *tests: Test) -> Callable[[_Work], Iterator[Step]]:
    """The rule that a guard that asks one of ``tests`` implies others on the same source."""

    def rule(work: _Work) -> Iterator[Step]:
        for strong in work.all(*tests):
            if len(work.on[strong.source]) > 1 and work.has(strong):
                yield from (
                    (weak, None) for weak in work.about(strong.source) if weak is not strong and implies(strong, weak)
                )

    return rule


def identity_implies(work: _Work) -> Iterator[Step]:
    """An identity implies what is known of that object, and two of them that two sources are the same one."""
    yield from _implied(_of_identity, Test.IS)(work)
    for item in work.all(Test.SAME):
        first, second = (
            {each.params[0] for each in work.about(source) if each.test is Test.IS} for source in item.sources
        )
        if first & second:
            yield item, None


def reading_implies(work: _Work) -> Iterator[Step]:
    """What is read from a dict by its key is in the dict."""
    wanted = [item for item in work.all(Test.DICT_CONTAINS) if item.params[1] and type(item.params[0]) is str]
    if not wanted:
        return
    read_now = _sources_of(item for item in work.left.values() if item.test is not Test.DICT_CONTAINS)
    for item in wanted:
        if item.source.child(Access.DICT_ITEM, item.params[0]) in read_now:
            yield item, None


def existence_is_implied(work: _Work) -> Iterator[Step]:
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

#: Accesses that run no code of a user's: reading twice gives the same object twice.
_PLAIN = frozenset(
    {
        Access.FRAME, Access.LOCAL, Access.GLOBALS, Access.DICT_ITEM, Access.CONSTANT, Access.LIST_ITEM,
        Access.TUPLE_ITEM, Access.GENERIC_DICT, Access.TYPE, Access.TYPE_DICT, Access.TYPE_MRO, Access.FUNC_DEFAULTS,
        Access.FUNC_KWDEFAULTS, Access.FUNC_CODE, Access.FUNC_CLOSURE, Access.GRAD, Access.TENSOR_SIZE,
        Access.TENSOR_STRIDE, Access.TENSOR_OFFSET, Access.DICT_KEY_AT, Access.DICT_VALUE_AT,
    }
)  # fmt: skip
#: Tests that run none either, whatever the object.
_QUIET = frozenset(
    {
        Test.EXISTS, Test.TYPE_IS, Test.IS, Test.IS_NOT, Test.IS_TARGET, Test.SAME_BITS, Test.DICT_LENGTH,
        Test.FLOAT_NAN, Test.COMPLEX_NAN, Test.TENSOR, Test.TUPLE_ITER_LEN, Test.RANGE_ITER, Test.DICT_VERSION,
    }
)  # fmt: skip
#: Aliases of aliases are followed this far: two that are parts of each other would go on for ever.
_HOPS = 8


def _is_quiet(item: Guard) -> bool:
    if item.test is Test.EQUALS:
        return type(item.params[0]) in (int, float, complex, bool, str, bytes)
    if item.test is Test.DICT_CONTAINS:
        return type(item.params[0]) is str
    return item.test in _QUIET


class _Aliases:
    """The sources that are one object, because a guard says so, and one source that stands for them."""

    def __init__(self) -> None:
        self.leader: dict[Source, Source] = {}
        self.known: dict[Source, Source] = {}
        self.plain: dict[Source, bool] = {}

    def is_plain(self, source: Source) -> bool:
        found = self.plain.get(source)
        if found is None:
            found = source.access in _PLAIN and (source.base is None or self.is_plain(source.base))
            self.plain[source] = found
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


def same_object_was_checked(work: _Work) -> Iterator[Step]:
    """Where two sources are one object, what is asked below the one need not be asked below the other."""
    aliases = _Aliases()
    for item in work.all(Test.SAME):
        first, second = item.sources
        if first is second or not (aliases.is_plain(first) and aliases.is_plain(second)):
            continue
        if not aliases.unite(first, second) and min(work.readers[first], work.readers[second]) > 1:
            yield item, None
    if not aliases.leader:
        return
    for item in list(work.left.values()):
        if item.test is Test.EXPRESSION:
            places = {source: aliases.of(source) for source in item.sources if aliases.is_plain(source)}
            made = _with_leaves(item, {source: read(to) for source, to in places.items() if to is not source})
            if made is not item:
                yield item, made
        elif len(item.sources) == 1 and aliases.is_plain(item.source) and _is_quiet(item):
            place = aliases.of(item.source)
            if place is not item.source and work.has(guard(item.test, (place,), item.params)):
                yield item, None


# -- expressions -------------------------------------------------------------------------------------------------------


def _folded(op: Op, *args: Term) -> Term:
    """The operation; its value, where that is known and costs nothing to compute; the source that is taken once."""
    if op is Op.MUL and {arg.op for arg in args} == {Op.SOURCE, Op.CONST}:
        number, source = sorted(args, key=lambda arg: arg.op is Op.SOURCE)
        if number.value == 1 and type(number.value) is int:
            return source
    made = term(op, *args)
    if made.sources or op in _COSTLY or any(arg.op is not Op.CONST for arg in args):
        return made
    try:
        value = evaluate(made, _no_value)
    except (ArithmeticError, ValueError, TypeError):
        return made
    return const(value) if type(value) in (int, float, bool) else made


_COSTLY = frozenset({Op.POW, Op.LSHIFT})


def _no_value(source: Source) -> Any:
    raise TypeError(f"{source} has no value here")


def _with_leaves(item: Guard, leaves: Mapping[Source, Term]) -> Guard:
    """The guard with other terms for some of its sources; the same where nothing would be left to check."""
    found, asked = item.params
    made = replaced(found, leaves.get, _folded)
    return item if made is found or not made.sources else expression(made, asked)


def _with_known(work: _Work, item: Guard, leaves: Mapping[Source, Term]) -> Iterator[Step]:
    """Decides or rewrites a guard by what is known of its sources. One that is known to fail stays as it is."""
    made = replaced(item.params[0], leaves.get, _folded)
    if made.op is Op.CONST:
        if made.value and work.may_go(item):
            yield item, None
        return
    becomes = _with_leaves(item, leaves)
    if becomes is not item and work.may_go(item, becomes):
        yield item, becomes


_SWAPPED = {Op.GT: Op.LT, Op.GE: Op.LE}
_NEGATED = {Op.EQ: Op.NE, Op.NE: Op.EQ}
_COMMUTATIVE = frozenset({Op.EQ, Op.NE, Op.ADD, Op.MUL})


class _Numbered:
    """A number for each term, the same for terms that mean the same, also for floats and where they raise."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}
        self.known: dict[Term, int] = {}

    def of(self, item: Term) -> int:
        waiting = [item]
        while waiting:
            first = waiting[-1]
            missing = [arg for arg in first.args if arg not in self.known]
            if missing:
                waiting += missing
            else:
                self.known[first] = self.numbers.setdefault(self._identity(first), len(self.numbers))
                waiting.pop()
        return self.known[item]

    def _identity(self, item: Term) -> Any:
        op, args = item.op, item.args
        if not args:
            return item
        if op is Op.NOT and args[0].op in _NEGATED:
            op, args = _NEGATED[args[0].op], args[0].args
        numbers = [self.known[arg] for arg in args]
        if op in _SWAPPED:
            return (_SWAPPED[op], *reversed(numbers))
        return (op, *(sorted(numbers) if op in _COMMUTATIVE and len(args) == 2 else numbers))


def says_the_same(work: _Work) -> Iterator[Step]:
    """``a >= b`` and ``b <= a``, ``a != b`` and ``not b == a``, sums and products the other way around."""
    numbered = _Numbered()
    first: dict[tuple[int, int], Guard] = {}
    for item in work.expressions():
        found, asked = item.params
        other = first.setdefault((numbered.of(found), id(asked)), item)
        if other is not item:
            yield item, other


def known_number_decides(work: _Work) -> Iterator[Step]:
    """Sizes and strides that a tensor guard says, and numbers that an equality says, are constants in expressions."""
    known: dict[Source, Term | None] = {}
    for item in work.expressions():
        for source in item.params[0].sources:
            if source not in known:
                number = _number(work, source)
                known[source] = None if number is None else const(number)
        leaves = {source: made for source in item.params[0].sources if (made := known[source]) is not None}
        if leaves:
            yield from _with_known(work, item, leaves)


def _number(work: _Work, source: Source) -> int | None:
    facts = work.tensor(source)
    if facts is not None and source.access is not Access.TENSOR_OFFSET:
        numbers = facts.sizes if source.access is Access.TENSOR_SIZE else facts.strides
        found: int | None = numbers[source.key] if source.key < len(numbers) else None
        if found is not None:
            return found
    values = (item.params[0] for item in work.about(source) if item.test is Test.EQUALS)
    return next((value for value in values if type(value) is int), None)


class _Equals:
    """Sources of which guards say that they are the same integer, and the source or number that stands for them."""

    def __init__(self) -> None:
        self.leader: dict[Source, Term] = {}

    def of(self, item: Term) -> Term:
        passed = []
        while item.op is Op.SOURCE and item.value in self.leader:
            passed.append(item.value)
            item = self.leader[item.value]
        for source in passed[:-1]:
            self.leader[source] = item
        return item

    def unite(self, one: Term, other: Term) -> bool:
        """Has ``other`` stand for ``one``: torch writes the source that it binds a symbol to on the right."""
        if one.op is Op.CONST:
            one, other = other, one
        if one.op is Op.CONST:
            return False  # two different numbers
        self.leader[one.value] = other
        return True


#: Rewriting can make equalities of symbols (``a * b == c``, with a known to be 1), which are used as often as this.
_ROUNDS = 4


def equal_symbols_are_one(work: _Work) -> Iterator[Step]:
    """As many equalities stay as it takes to connect the symbols; all else is about one symbol of each group."""
    equals = _Equals()
    for _ in range(_ROUNDS):
        before = len(equals.leader)
        yield from _united(work, equals)
        if len(equals.leader) == before:
            return
        for item in work.expressions():
            leaves = {s: equals.of(equals.leader[s]) for s in item.params[0].sources if s in equals.leader}
            if leaves and item not in work.used:
                yield from _with_known(work, item, leaves)


def _united(work: _Work, equals: _Equals) -> Iterator[Step]:
    """Has every equality of two symbols stay, or go where others say it already."""
    for item in work.expressions():
        found = item.params[0]
        if found.op is not Op.EQ or item in work.used or not all(_is_symbol(work, side) for side in found.args):
            continue
        one, other = map(equals.of, found.args)
        if one is other:
            if work.may_go(item):
                yield item, None
        elif equals.unite(one, other):
            work.used.add(item)


def _is_symbol(work: _Work, item: Term) -> bool:
    """An integer that is a source, or a number."""
    if item.op is Op.SOURCE:
        return work.integer(item.value) is not None
    return item.op is Op.CONST and type(item.value) is int


def bounds_imply(work: _Work) -> Iterator[Step]:
    """``s >= 3`` implies ``s > 1``; ``a >= 2`` and ``b >= 2`` imply ``a * b != 0``."""
    return _conclusions(work, lambda found: found.region.modulus < 2)


def divisibility_implies(work: _Work) -> Iterator[Step]:
    """``s % 8 == 0`` implies ``s % 4 == 0`` and ``s != 3``."""
    return _conclusions(work, lambda found: found.excluded or found.region.modulus > 1)


def _conclusions(work: _Work, concerns: Callable[[Constraint], bool]) -> Iterator[Step]:
    """Constraints of one kind that follow from others and from what is known; the others are known from then on.

    First those of the symbols themselves, then those of what is computed from them.
    """
    for symbols in (True, False):
        work.integers.look_again()
        forms: dict[Form, list[tuple[Guard, Constraint]]] = {}
        for item in work.expressions():
            if item in work.used or (symbols and len(item.sources) > 1):
                continue
            found = work.integers.constraint(item.params[0])
            if found is not None and concerns(found) and _is_of_symbol(found.form) is symbols:
                forms.setdefault(found.form, []).append((item, found))
        for form in sorted(forms, key=lambda form: not isinstance(form, Term)):
            work.watch_the_clock()
            yield from _concluded(work, form, forms[form])


def _is_of_symbol(form: Form) -> bool:
    return isinstance(form, Term) and form.op is Op.SOURCE


def _concluded(work: _Work, form: Form, found: list[tuple[Guard, Constraint]]) -> Iterator[Step]:
    value = work.integers.of_form(form)
    for item, constraint in sorted(found, key=lambda pair: pair[1].weakness):
        if constraint.follows_from(value):
            if work.may_go(item):
                yield item, None
        elif not constraint.excluded:
            both = meet(value, constraint.region)
            if both is not None:  # otherwise no value satisfies the guards
                value = both
                work.used.add(item)
    work.integers.learn(form, value)


def arithmetic_decides(work: _Work) -> Iterator[Step]:
    """What else is true whatever the values of the symbols, by all that is known of them."""
    work.integers.look_again()
    for item in work.expressions():
        if item not in work.used:
            value = work.integers.value(item.params[0])
            if value is not None and truth(value) and work.may_go(item):
                yield item, None


#: In this order: what is left of objects says which numbers are integers and known.
RULES: dict[str, Callable[[_Work], Iterator[Step]]] = {
    "a value implies it": _implied(_of_value, Test.EQUALS, Test.SAME_BITS, Test.DEEP_EQUALS),
    "the keys of a dict imply it": _implied(_of_keys, Test.KEYS),
    "a tensor guard implies it": _implied(_of_tensor, Test.TENSOR),
    "an identity implies it": identity_implies,
    "a type implies it": _implied(_of_type, Test.TYPE_IS),
    "the same object was checked": same_object_was_checked,
    "an item of it is read": reading_implies,
    "existence is implied": existence_is_implied,
    "says the same": says_the_same,
    "a known number decides it": known_number_decides,
    "equal symbols are one": equal_symbols_are_one,
    "bounds imply it": bounds_imply,
    "divisibility implies it": divisibility_implies,
    "arithmetic decides it": arithmetic_decides,
}


def simplify(guard_set: GuardSet, budget: float = BUDGET_S) -> Simplified:
    """The guards that need checking, and those that do not with the rule that removed each.

    The remaining guards keep their order; one that is rewritten takes the place of what it was. A set that no rule
    applies to comes back as the same object.

    Args:
        guard_set: what must hold.
        budget: seconds. When they are over, everything that no rule has taken yet stays as it is.
    """
    work = _Work(guard_set, budget)
    stopped = None
    for name, rule in RULES.items():
        try:
            work.watch_the_clock()
            for item, becomes in rule(work):
                work.take(name, item, becomes)
        except _OutOfTime:
            stopped = f"after {budget * 1000:.0f} ms, before {name!r} was through"
            break
        except RecursionError:
            stopped = f"at an expression that is too deep for {name!r}"
    return work.result(guard_set, stopped)
