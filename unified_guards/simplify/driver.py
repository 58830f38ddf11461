"""Rewrites a :class:`GuardSet` into a smaller one with the same verdict on every frame.

:data:`RULES` is the table of what is known to be superfluous; each rule names itself in what it removes, so that a
report can say why. Exact duplicates are already one guard in a GuardSet; who asked for them is in its provenance.

Why it is sound: rules take one step at a time, and each step removes a guard that follows from those that are still
there at that moment, or replaces it by one that means the same beside them. So no two guards can vouch for each other
and both go. The last guard that reads a source stays, even if it follows from others: if the source vanishes, the check
must fail. Entry point: :func:`simplify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unified_guards.guards.ir import GuardSet, Test
from unified_guards.simplify import expressions, objects
from unified_guards.simplify.work import OutOfSteps, Simplified, Step, Work

#: How many steps (see :meth:`Work.spend`) one set may take: a number of steps and no time, so that what comes of a set
#: never depends on what else the machine does. 5,000 shape guards on 500 symbols take 210,000, in a fifth of a second.
BUDGET = 1_000_000

#: In the order of application. Rules of objects come first: the guards that these leave say which numbers are integers,
#: and which numbers are known.
RULES: dict[str, Callable[[Work], Iterator[Step]]] = {
    "a value implies it": objects.implied(objects.of_value, Test.EQUALS, Test.SAME_BITS, Test.DEEP_EQUALS),
    "the keys of a dict imply it": objects.implied(objects.of_keys, Test.KEYS),
    "a tensor guard implies it": objects.implied(objects.of_tensor, Test.TENSOR),
    "an identity implies it": objects.identity_implies,
    "a type implies it": objects.implied(objects.of_type, Test.TYPE_IS),
    "the same object was checked": objects.same_object_was_checked,
    "an item of it is read": objects.reading_implies,
    "existence is implied": objects.existence_is_implied,
    "says the same": expressions.says_the_same,
    "a known number decides it": expressions.known_number_decides,
    "equal symbols are one": expressions.equal_symbols_are_one,
    "bounds imply it": expressions.bounds_imply,
    "divisibility implies it": expressions.divisibility_implies,
    "arithmetic decides it": expressions.arithmetic_decides,
}


def simplify(guard_set: GuardSet, budget: int = BUDGET) -> Simplified:
    """The guards that need checking, and those that do not with the rule that removed each.

    The remaining guards keep their order; one that is rewritten takes the place of what it was. A set that no rule
    applies to comes back as the same object.

    Args:
        guard_set: what must hold.
        budget: steps. When they are used up, everything that no rule has taken yet stays as it is.
    """
    work = Work(guard_set, budget)
    stopped = None
    for name, rule in RULES.items():
        try:
            work.spend(len(work.left))  # each rule looks at each guard
            for item, becomes in rule(work):
                work.take(name, item, becomes)
        except OutOfSteps:
            stopped = f"after {budget} steps, before {name!r} was through"
            break
        except RecursionError:
            stopped = f"at an expression that is too deep for {name!r}"
    return work.result(guard_set, stopped)
