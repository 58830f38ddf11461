"""What rules work on: the guards that are left of a set, and what is known of them. Entry point: :class:`Work`."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

from unified_guards.guards.ir import Access, Guard, GuardSet, Source, TensorFacts, Test
from unified_guards.simplify.linear import Integers
from unified_guards.simplify.ranges import ANY, Integer


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
        stopped: where the budget or Python's stack was used up; None when every rule was applied to everything.
    """

    guard_set: GuardSet
    removed: list[Removed]
    stopped: str | None = None


class OutOfSteps(Exception):
    """The budget is used up."""


#: What a rule yields: a guard, and what takes its place.
Step = tuple[Guard, Guard | None]


class Work:
    """The guards that are left, and what the rules want to know of them."""

    def __init__(self, guard_set: GuardSet, budget: int) -> None:
        self.budget = budget  # how many steps may be taken still
        self.removed: list[Removed] = []
        # Keys of `left` and `merged` are guards of the set, whatever has become of them since.
        self.left: dict[Guard, Guard] = {item: item for item in guard_set}  # what each guard of the set is by now
        self.origin: dict[Guard, Guard] = {}  # from a guard that a rule made to the guard of the set that it replaces
        self.merged: dict[Guard, Guard] = {}  # from a guard that came to say the same as another one to that other one
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
        """Whether a guard is left to check: one of the set, or one that took the place of one."""
        return self.left.get(self.origin.get(item, item)) is item

    def all(self, *tests: Test) -> list[Guard]:
        """The guards that ask one of ``tests``."""
        return [item for test in tests for item in self.by_test.get(test, ()) if item in self.left]

    def about(self, source: Source) -> Iterator[Guard]:
        """The guards on just this source."""
        return (item for item in self.on.get(source, ()) if item in self.left)

    def expressions(self) -> Iterator[Guard]:
        """The expressions as they are by now, for as long as the budget lasts."""
        for item in self.by_test.get(Test.EXPRESSION, ()):
            self.spend(1 + len(item.sources))
            found = self.left.get(item)
            if found is not None:
                yield found

    def spend(self, steps: int) -> None:
        """Counts steps: one for each guard that a rule looks at, and one for each source that the guard reads."""
        self.budget -= steps
        if self.budget < 0:
            raise OutOfSteps

    def take(self, rule: str, item: Guard, becomes: Guard | None) -> None:
        """Takes one step: drops a guard, or puts another one in its place."""
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
        """Whether a tensor guard compares this size. Then the size exists and is an exact int."""
        facts = self.tensor(source) if source.access is Access.TENSOR_SIZE else None
        return facts is not None and source.key < len(facts.sizes) and facts.sizes[source.key] is not None

    def tensor(self, source: Source) -> TensorFacts | None:
        """What is guarded of a tensor, where ``source`` is one of its numbers: a size, a stride, or the offset."""
        if source.access not in _NUMBERS or source.base is None:
            return None
        return next((item.params[0] for item in self.about(source.base) if item.test is Test.TENSOR), None)

    def may_go(self, item: Guard, becomes: Guard | None = None) -> bool:
        """Whether other guards read every source of an expression, too.

        The last guard that reads a source has to stay: if the source vanishes, the check must fail.
        """
        stays = () if becomes is None else becomes.sources
        read_here = item.params[0].sources
        return all(source in stays or self.readers[source] > 1 or self.vouched(source) for source in read_here)

    def integer(self, source: Source) -> Integer | None:
        """The integers that the value of a source can be; None when the value may be no exact int."""
        if source.access in _NUMBERS:
            return _NUMBERS[source.access]
        for item in self.about(source):
            if item.test is Test.TYPE_IS and item.params[0] == id(int):
                return ANY
            if item.test is Test.EQUALS and type(item.params[0]) is int:
                return ANY
        return None


_SIZE = Integer(0, 2**63 - 1, 1, 0)
#: Numbers of a tensor. Where there is such a number, it is an exact int of 64 bits.
_NUMBERS = {
    Access.TENSOR_SIZE: _SIZE,
    Access.TENSOR_STRIDE: Integer(-(2**63), 2**63 - 1, 1, 0),
    Access.TENSOR_OFFSET: _SIZE,
}
