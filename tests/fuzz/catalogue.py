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

from unified_guards.ir import Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower import lower

from . import engine
from .guards import Maker, ambient, in_order, reached, relations, shape_function, tests_of
from .mutations import ROWS, Change

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
        for family, root in FRAMES:
            choose = random.Random(family)
            f_locals = functools.partial(getattr(world, f"{family}_locals"), root)
            made = _some(list(_guards(f_locals(), world.scope, choose)), choose)
            made += _relations(f_locals(), world.scope, choose)
            if root == 0:
                made += [*ambient(), guard(Test.SHAPE, (Source.frame(),), (shape_function, "a shape function"))]
            held = Maker(world, lambda _, f_locals=f_locals: f_locals(), 1, choose).holding(dict.fromkeys(made))
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
