"""Rules about expressions: which say the same, which a known number decides, which follow from what others say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from unified_guards.guards.expressions import Op, Term, const, replaced
from unified_guards.guards.ir import Access, Guard, Source, Test
from unified_guards.simplify.linear import Constraint, Form
from unified_guards.simplify.ranges import meet, truth
from unified_guards.simplify.rewrite import folded, with_leaves
from unified_guards.simplify.work import Step, Work


def _with_known(work: Work, item: Guard, leaves: Mapping[Source, Term]) -> Iterator[Step]:
    """Decides or rewrites a guard by what is known of its sources. One that is known to fail stays as it is."""
    made = replaced(item.params[0], leaves.get, folded)
    if made.op is Op.CONST:
        if made.value and work.may_go(item):
            yield item, None
        return
    becomes = with_leaves(item, leaves)
    if becomes is not item and work.may_go(item, becomes):
        yield item, becomes


_SWAPPED = {Op.GT: Op.LT, Op.GE: Op.LE}
_NEGATED = {Op.EQ: Op.NE, Op.NE: Op.EQ}
_COMMUTATIVE = frozenset({Op.EQ, Op.NE, Op.ADD, Op.MUL})


class _Numbered:
    """Gives each term a number. Terms with the same number mean the same, also for floats, and raise alike."""

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


def says_the_same(work: Work) -> Iterator[Step]:
    """``a >= b`` and ``b <= a``, ``a != b`` and ``not b == a``, sums and products the other way around."""
    numbered = _Numbered()
    first: dict[tuple[int, int], Guard] = {}
    for item in work.expressions():
        found, asked = item.params
        other = first.setdefault((numbered.of(found), id(asked)), item)
        if other is not item:
            yield item, other


def known_number_decides(work: Work) -> Iterator[Step]:
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


def _number(work: Work, source: Source) -> int | None:
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
        """Makes ``other`` stand for ``one``; False for two different numbers.

        It is the right side that stands for both: there torch writes the source that it binds a symbol to.
        """
        if one.op is Op.CONST:
            one, other = other, one
        if one.op is Op.CONST:
            return False
        self.leader[one.value] = other
        return True


#: How often equalities of symbols are looked for: rewriting can make new ones (``a * b == c``, with a known to be 1).
_ROUNDS = 4


def equal_symbols_are_one(work: Work) -> Iterator[Step]:
    """Keeps enough equalities to connect symbols that are equal, and rewrites the rest to one symbol of each group."""
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


def _united(work: Work, equals: _Equals) -> Iterator[Step]:
    """Notes every equality of two symbols. One that follows from those before it goes."""
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


def _is_symbol(work: Work, item: Term) -> bool:
    """Whether the term is a source whose value is an integer, or an integer constant."""
    if item.op is Op.SOURCE:
        return work.integer(item.value) is not None
    return item.op is Op.CONST and type(item.value) is int


def bounds_imply(work: Work) -> Iterator[Step]:
    """``s >= 3`` implies ``s > 1``; ``a >= 2`` and ``b >= 2`` imply ``a * b != 0``."""
    return _conclusions(work, lambda found: found.region.modulus < 2)


def divisibility_implies(work: Work) -> Iterator[Step]:
    """``s % 8 == 0`` implies ``s % 4 == 0`` and ``s != 3``."""
    return _conclusions(work, lambda found: found.excluded or found.region.modulus > 1)


def _conclusions(work: Work, concerns: Callable[[Constraint], bool]) -> Iterator[Step]:
    """Removes constraints of one kind that follow from others and from what is known; the others become known.

    Constraints on the symbols themselves come first, then constraints on what is computed from symbols.
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
            work.spend(1)
            yield from _concluded(work, form, forms[form])


def _is_of_symbol(form: Form) -> bool:
    return isinstance(form, Term) and form.op is Op.SOURCE


def _concluded(work: Work, form: Form, found: list[tuple[Guard, Constraint]]) -> Iterator[Step]:
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


def arithmetic_decides(work: Work) -> Iterator[Step]:
    """Removes what is true for all values that the symbols can have."""
    work.integers.look_again()
    for item in work.expressions():
        if item not in work.used:
            value = work.integers.value(item.params[0])
            if value is not None and truth(value) and work.may_go(item):
                yield item, None
