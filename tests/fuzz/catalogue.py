"""Which guards each row of the table makes fail: single guards of every kind on every object of a world.

Entry point: :class:`Catalogue`.
"""

from __future__ import annotations

import collections
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower

from . import engine
from .guards import Maker, ambient, in_order, reached, relations, shape_function, tests_of
from .mutations import ROWS, Change
from .world import World

Locals = dict[str, Any]

#: Of each frame there are guards: the family, and the root. Some changes are only made of the last inline object.
FRAMES = (("layer", 0), ("thing", 0), ("inline", 0), ("inline", 5), ("space", 0))
#: How many guards of one test on what was reached by the same two steps, the first of which has the same key.
MOST = 2
#: How many go into one program.
DOZEN = 48


def _guards(f_locals: Locals, scope: Any, choose: random.Random) -> Iterator[Guard]:
    found = []
    for source, value, first in reached(f_locals, scope):
        asks = tests_of(value, choose, python=True)
        # Of an object that was seen before, what says that this way leads to it.
        for test, params in asks if first else asks[1:3]:
            yield guard(test, (source,), params)
        found.append((source, value))


def _relations(f_locals: Locals, scope: Any, choose: random.Random) -> Iterator[Guard]:
    found = [(source, value) for source, value, _ in reached(f_locals, scope)]
    tensors = [(source, value) for source, value in found if isinstance(value, torch.Tensor)]
    for _ in range(20):
        yield from relations(choose.sample(found, 30), choose)
        yield from relations(choose.sample(tensors, 20) if len(tensors) > 20 else tensors, choose)


def _some(guards: list[Guard], choose: random.Random) -> list[Guard]:
    """Not too many that ask the same of what was reached the same way."""
    counts: collections.Counter[object] = collections.Counter()
    kept = []
    for item in choose.sample(guards, len(guards)):
        kind = item.test, item.source.access, item.source.base and (item.source.base.access, str(item.source.base.key))
        counts[kind] += 1
        if counts[kind] <= MOST:
            kept.append(item)
    return kept


def every_guard(world: World) -> Iterator[tuple[Callable[[], Locals], list[Guard]]]:
    """The locals of each frame, and guards on it that hold now."""
    for family, root in FRAMES:
        choose = random.Random(family)
        f_locals = functools.partial(getattr(world, f"{family}_locals"), root)
        made = _some(list(_guards(f_locals(), world.scope, choose)), choose)
        made += _relations(f_locals(), world.scope, choose)
        if root == 0:
            made += [*ambient(), guard(Test.SHAPE, (Source.frame(),), (shape_function, "a shape function"))]
        yield f_locals, Maker(world, lambda _, f_locals=f_locals: f_locals(), 1, choose).holding(dict.fromkeys(made))


class _Family:
    """All guards on one frame: each alone, and by the dozen in one program, which tells whether to ask each."""

    def __init__(self, f_locals: Callable[[], Locals], guards: list[Guard]) -> None:
        self.f_locals = f_locals
        # Torch makes one compiled shape function for a frame, and a program has room for one.
        apart = [item for item in guards if item.test is Test.SHAPE_CALL]
        rest = in_order([item for item in guards if item.test is not Test.SHAPE_CALL])
        self._group([[item] for item in apart] + [rest[at : at + DOZEN] for at in range(0, len(rest), DOZEN)])

    def _group(self, groups: list[list[Guard]]) -> None:
        self.groups = [(_exact(group), [(item, _exact([item])) for item in group]) for group in groups if group]

    def failing(self) -> list[Guard]:
        f_locals = self.f_locals()
        groups = [checks for exact, checks in self.groups if not exact(f_locals)]
        return [item for checks in groups for item, exact in checks if not exact(f_locals)]

    def drop(self, items: list[Guard]) -> None:
        self._group([[item for item, _ in checks if item not in items] for _, checks in self.groups])


def _exact(guards: list[Guard]) -> Callable[[Locals], bool]:
    checker = engine.native(lower(GuardSet((item, Provenance("fuzz")) for item in guards)))
    return checker.exact


class Catalogue:
    """What happens to single guards when each change is made and undone.

    Attributes:
        there: every guard.
        by_row: of each row, the guards that it made fail.
        lasting: of each row, those that it made fail for good.
    """

    def __init__(self) -> None:
        self.episode = engine.Episode(0, sets=0)
        world = self.episode.world
        self.families: list[_Family] = []
        self.there: list[Guard] = []
        for f_locals, held in every_guard(world):
            self.families.append(_Family(f_locals, held))
            self.there += held
        self.by_row: dict[str, list[Guard]] = {name: [] for name in ROWS}
        self.lasting: dict[str, list[Guard]] = {name: [] for name in ROWS}
        for name, change in zip(self.episode.names, self.episode.changes, strict=True):
            self._try(name, change)
        self.episode.close()

    def _try(self, name: str, change: Change) -> None:
        self.episode._do(change.change)
        found = [(family, family.failing()) for family in self.families]
        if change.restore is not None:
            self.episode._do(change.restore)
        for family, failed in found:
            self.by_row[name] += failed
            lost = family.failing() if failed else []
            if lost:
                self.lasting[name] += lost
                family.drop(lost)


#: Of how many changes of a row it is asked which facts notice them.
CHANGES = 40
#: How many programs are kept for one object of a frame, and at least for one kind of facts.
ENOUGH, RARE = 2, 40
#: Guards that facts of their own stand for, beside those on the way there; none on identity, which what is made anew
#: would break for good.
_ASKED = {Test.EXISTS, Test.TYPE_IS, Test.TENSOR, Test.NO_ATTR, Test.LENGTH, Test.DIM_MARKING}


def _object_of(item: Guard) -> Source:
    """What lies a few steps below the frame, on the way to what a guard asks about."""
    return [*item.source.steps()][max(-4, -1 - item.source.depth)]


class Moved:
    """Which kinds of facts notice each row of the table: what had moved when programs on everything were checked.

    Attributes:
        by_row: of each row, the kinds.
        recorded: all kinds that some witness had a fact of.
    """

    def __init__(self) -> None:
        self.episode = engine.Episode(0, sets=0)
        world = self.episode.world
        # Each with one guard: what fails keeps what comes later from being looked at.
        self.below: dict[Any, Source] = {}
        self.programs: dict[Callable[[], Locals], list[Any]] = {}
        for f_locals, guards in every_guard(world):
            self._add(f_locals, [item for item in guards if item.test in _ASKED])
        # Of objects that nobody has asked for a dict.
        for root in (1, 4):
            self._add(functools.partial(world.inline_locals, root), self._asked_of_inlines(world))
        self._settle()
        self._rest()
        for f_locals, item in self._pinned(world):
            self._add(f_locals, [item])
        self._settle()
        self.recorded = {
            kind for made in self.programs.values() for each in made for kind in each.witness["fact_kinds"]
        }
        self.by_row: dict[str, set[str]] = {name: set() for name in ROWS}
        for name in ROWS:
            found = [
                change for row, change in zip(self.episode.names, self.episode.changes, strict=True) if row == name
            ]
            for change in found[:: max(len(found) // CHANGES, 1)]:
                self.by_row[name] |= self._try(change)
        self.episode.close()

    @staticmethod
    def _asked_of_inlines(world: World) -> list[Guard]:
        one = Source.frame().child(Access.LOCAL, "self")
        values = vars(world.classes.Inline())
        made = [guard(Test.NO_ATTR, (one,), ("extra",))]
        return made + [guard(Test.EXISTS, (one.child(Access.ATTR, name),)) for name in values]

    @staticmethod
    def _pinned(world: World) -> Iterator[tuple[Callable[[], Locals], Guard]]:
        """What is kept in any case: on the state, on roots, and on what is rare or made anew each time."""
        space = functools.partial(world.space_locals, 0)
        whole = Source.frame().child(Access.LOCAL, "w")

        def at(*names: str) -> Source:
            return functools.reduce(lambda source, name: source.child(Access.ATTR, name), names, whole)

        scratch = at("scratch")
        sources = [at("kinds", name).child(Access.GRAD) for name in world.kinds()]
        sources += [scratch.child(Access.LIST_ITEM, number).child(Access.GRAD) for number in range(4)]
        sources += [at("mortal", name).child(Access.FUNC_DEFAULTS) for name in ("function", "method")]
        sources += [at("mortal", "ref").child(Access.WEAKREF_CALL), at("mortal", "thing", "a"), at("slotted", "a")]
        sources.append(at("borrower", "a"))
        for source in sources:
            yield space, guard(Test.EXISTS, (source,))
        for number in range(2):
            yield space, guard(Test.NO_ATTR, (scratch.child(Access.LIST_ITEM, number),), ("extra",))
        for item in ambient():
            yield space, item
        for family, name in (("layer", "flag"), ("thing", "own"), ("inline", "a")):
            root = Source.frame().child(Access.LOCAL, "self").child(Access.ATTR, name)
            yield functools.partial(getattr(world, f"{family}_locals"), 0), guard(Test.EXISTS, (root,))
        # Of dicts that change with every call.
        for family, name in (("layer", "flag"), ("thing", "own")):
            one = Source.frame().child(Access.LOCAL, "self")
            stirred = functools.partial(getattr(world, f"{family}_locals"), 1)
            yield stirred, guard(Test.EXISTS, (one.child(Access.ATTR, name),))
            yield stirred, guard(Test.NO_ATTR, (one,), ("extra",))
        for name in ("number", "real", "items", "inner"):
            yield space, guard(Test.EXISTS, (at("stirred").child(Access.DICT_ITEM, name),))
        yield space, guard(Test.TYPE_IS, (at("stirred").child(Access.DICT_ITEM, "inner"),), (id(dict), "dict"))
        yield space, guard(Test.DICT_LENGTH, (at("stirred"),), (len(world.space.stirred),))
        yield space, guard(Test.DICT_CONTAINS, (at("stirred"),), ("absent", False))

    def _add(self, f_locals: Callable[[], Locals], guards: list[Guard]) -> None:
        made = [engine.native(lower(GuardSet([(item, Provenance("fuzz"))]))) for item in guards]
        self.programs.setdefault(f_locals, []).extend(made)
        self.below.update(zip(made, map(_object_of, guards), strict=True))

    def _try(self, change: Change) -> set[str]:
        before = _C.moved_facts()
        self.episode._do(change.change)
        self._check()
        after = _C.moved_facts()
        if change.restore is not None:
            self.episode._do(change.restore)
        self._settle()
        self._drop()
        return {kind for kind, count in after.items() if count > before[kind]}

    def _check(self) -> None:
        for get, checkers in self.programs.items():
            f_locals = get()
            for each in checkers:
                each.check(f_locals)

    def _settle(self) -> None:
        """Until every witness is recorded and nothing moves."""
        for _ in range(6):
            before = _C.moved_facts()
            self._check()
            if _C.moved_facts() == before:
                break

    def _drop(self) -> None:
        """What a change made fail for good would move with every other."""
        for get, checkers in self.programs.items():
            f_locals = get()
            self.programs[get] = [each for each in checkers if each.check(f_locals)]

    def _rest(self) -> None:
        """Keeps what holds and finds everything as it was, some of each kind."""
        counts: collections.Counter[object] = collections.Counter()
        for get, checkers in self.programs.items():
            kept = []
            for each in checkers:
                before = _C.moved_facts()
                if not each.check(get()) or _C.moved_facts() != before:
                    continue
                kinds = set(each.witness["fact_kinds"]) | ({"tensor"} if each.witness["tensors"] else set())
                keys = {(get, self.below[each]), *kinds}
                if any(counts[key] < (RARE if isinstance(key, str) else ENOUGH) for key in keys):
                    counts.update(keys)
                    kept.append(each)
            self.programs[get] = kept
