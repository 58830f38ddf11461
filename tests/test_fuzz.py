"""What the fuzzer of tests/fuzz does in a CI run, what its table of mutations covers, and that it can fail.

FUZZ_STEPS says how many steps; ``make fuzz`` goes on for as long as one likes.
"""

from __future__ import annotations

import collections
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from unified_guards.guards import semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import Program, lower

from .fuzz import __main__ as fuzz
from .fuzz import compiled, engine
from .fuzz.catalogue import Catalogue
from .fuzz.mutations import ROWS

STEPS = int(os.environ.get("FUZZ_STEPS", "150000"))

# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture(scope="module")
def episode() -> Iterator[engine.Episode]:
    made = engine.Episode(1, sets=32)
    yield made
    made.close()


@pytest.mark.parametrize("name", ROWS)
def test_after_this_mutation_alone_the_tiers_agree(name: str, episode: engine.Episode) -> None:
    episode.settle()
    numbers = [at for at, found in enumerate(episode.names) if found == name]
    assert numbers
    for number in numbers:
        for act in (episode.change, episode.restore):
            act(number)
            for probe in episode.probes:
                episode.ask(probe)


@pytest.mark.parametrize("name", ROWS)
def test_some_guard_notices_this_mutation(name: str, catalogue: Catalogue) -> None:
    noticed = catalogue.by_row[name]
    if ROWS[name].neutral:
        assert not noticed
    else:
        assert noticed


#: What these rows make anew, or swap, is another object afterwards: guards on identity stay broken.
OTHER_OBJECTS = (
    *("module_to", "tensors_swapped", "weak_target_dies", "freed_and_made_again", "mortals_in_place"),
    *("class_freed_and_made_again", "tensor_kinds_in_place", "tensor_kinds_swapped", "tensor_kinds_replaced"),
    *("base_comes_to_require_grad", "mro_of_its_own"),
)


IDENTITIES = (Test.IS, Test.IS_TARGET, Test.EQUALS)  # classes are equal when they are the same


def test_every_mutation_can_be_undone(catalogue: Catalogue) -> None:
    lasting = {
        name: [str(item) for item in found if name not in OTHER_OBJECTS or item.test not in IDENTITIES]
        for name, found in catalogue.lasting.items()
    }
    assert {name: found for name, found in lasting.items() if found} == {}


def test_every_kind_of_guard_is_noticed_to_fail(catalogue: Catalogue) -> None:
    # One cannot be checked at all; versions of dicts never come back, so the engine makes sets on them anew.
    there = {item.test for item in catalogue.there}
    assert {test.name for test in Test if test not in there} == {"OPAQUE", "DICT_VERSION"}
    failed = {item.test for found in catalogue.by_row.values() for item in found}
    assert {test.name for test in there - failed} == set()


def test_every_access_is_noticed_to_lead_elsewhere(catalogue: Catalogue) -> None:
    def way(item: Guard) -> Iterator[Access]:
        for source in item.sources:
            step = source
            while step.base is not None:
                yield step.access
                step = step.base

    failed = {access for found in catalogue.by_row.values() for item in found for access in way(item)}
    assert {access.name for access in Access if access not in failed} == {"FRAME"}


# -- steps -------------------------------------------------------------------------------------------------------------


def test_steps_at_random(capsys: pytest.CaptureFixture[str]) -> None:
    total = engine.Statistics()
    seed, left = 1, STEPS
    while left > 0:
        steps = min(left, fuzz.STEPS)
        failure = fuzz.episode(seed, steps, float("inf"), engine.native, total)
        assert failure is None, failure
        seed, left = seed + 1 + ((seed + 1) % fuzz.COMPILED_EVERY == 0), left - steps
    with capsys.disabled():
        print(f"\n{fuzz.summary(total).splitlines()[0]}")
    assert total.steps == STEPS
    if STEPS >= 100_000:
        assert 0.5 < total.passes / total.checks < 0.95


def test_steps_on_functions_that_were_compiled() -> None:
    total = engine.Statistics()
    steps = min(STEPS // 100, fuzz.COMPILED_STEPS)
    failure = fuzz.episode(0, steps, float("inf"), engine.native, total)
    assert failure is None, failure


def test_functions_that_are_compiled_are_hit_as_compiled() -> None:
    made = engine.Episode(0, sets=0, compiled=compiled.frames)
    for frame in made.frames:
        for root in range(frame.roots):
            f_locals = frame.f_locals(root)
            assert frame.exact(f_locals), (frame.family, root, semantics.explain_failure(frame.guard_set, f_locals))
    noticed = collections.Counter(probe.frame.family for found in made.noticed for probe in found)
    assert set(noticed) == {frame.family for frame in made.frames}
    made.close()


# -- what it found -----------------------------------------------------------------------------------------------------

#: Values that never change: as they are first, and as they are when they come again at the same address.
REBORN: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "float": (lambda: float("0.25"), lambda: float("1.25")),
    "int": (lambda: int("1" * 20), lambda: int("2" * 20)),
    "str": (lambda: "ab" * 9 + str(1), lambda: "ab" * 9 + str(2)),
    "tuple": (lambda: (0, [1]), lambda: (1, [1])),
}


@pytest.mark.parametrize("held_by", ["attribute", "dict"])
@pytest.mark.parametrize("kind", REBORN)
def test_an_immutable_value_dies_and_another_comes_to_its_address(kind: str, held_by: str) -> None:
    first, second = REBORN[kind]
    bag, local = types.SimpleNamespace(value=first()), Source.frame().child(Access.LOCAL, "bag")
    if held_by == "attribute":
        source = local.child(Access.ATTR, "value")
    else:
        source = local.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "value")
    source = source.child(Access.TUPLE_ITEM, 0) if kind == "tuple" else source
    checker = _checker(guard(Test.EQUALS, (source,), (0 if kind == "tuple" else first(),)))
    for _ in range(4):
        assert checker.check({"bag": bag})
    address, bag.value, kept = id(bag.value), None, []
    while id(made := second()) != address and len(kept) < 50:
        kept.append(made)
    bag.value = made
    assert not checker.check({"bag": bag})


def test_a_class_gets_other_bases_twice() -> None:
    class One:
        pass

    class Other:
        pass

    class Derived(One):
        pass

    source = Source.frame().child(Access.LOCAL, "thing").child(Access.TYPE).child(Access.TYPE_MRO)
    checker = _checker(guard(Test.IS, (source.child(Access.TUPLE_ITEM, 1),), (id(One), "One")))
    f_locals = {"thing": Derived()}
    for _ in range(4):
        assert checker.check(f_locals)
    for _ in range(2):
        Derived.__bases__ = (Other,)
    assert not checker.check(f_locals)
    for _ in range(2):
        Derived.__bases__ = (One,)
    assert checker.check(f_locals)


def _checker(*guards: Guard) -> Any:
    return engine.native(lower(GuardSet((item, Provenance("test")) for item in guards)))


# -- it can fail -------------------------------------------------------------------------------------------------------


class Standing:
    """A checker that answers as it did the last time, for each root, when `trusted` says so."""

    def __init__(self, program: Program) -> None:
        self.native = engine.native(program)
        self.exact = self.native.exact
        self.before: dict[int, tuple[Any, bool]] = {}

    @property
    def last_failure(self) -> int | None:
        return self.native.last_failure

    def facts(self, f_locals: dict[str, Any]) -> Any:
        return None

    def check(self, f_locals: dict[str, Any]) -> bool:
        root = f_locals.get("self", f_locals.get("w"))
        facts = self.facts(f_locals)
        known = self.before.get(id(root))
        if known is not None and known[1] and known[0] == facts:
            return True
        found = self.native.exact(f_locals)
        self.before[id(root)] = (facts, found)
        return found


class NeverLooks(Standing):
    """Its first hit on a root is its answer from then on."""


class LooksAtTheRoot(Standing):
    """Trusts whatever is below the attributes of the root."""

    def facts(self, f_locals: dict[str, Any]) -> Any:
        root = f_locals.get("self", f_locals.get("w"))
        held = root.__dict__ if hasattr(root, "__dict__") else None
        below = [(name, id(value)) for name, value in held.items()] if isinstance(held, dict) else []
        return type(root), below, f_locals.keys() - {"kwargs"}


def blind(test: str) -> engine.MakeChecker:
    """Makes checkers that do not look at one kind of guard."""
    op = engine._C.OPS[test]

    def make(program: Program) -> Any:
        class Blind(Standing):
            def check(self, f_locals: dict[str, Any]) -> bool:
                return seeing.exact(f_locals)

        seeing = engine._C.Checker(
            [row for row in program.rows if row[0] != op] or [(engine._C.OPS["TYPE"], 0, 0, None, 0)]
        )
        return Blind(program)

    return make


BROKEN: dict[str, engine.MakeChecker] = {"never looks": NeverLooks, "looks at the root": LooksAtTheRoot}
_BLIND = ("TENSOR", "TYPE_IS", "IS", "EQUALS", "DICT_LENGTH", "LENGTH", "NO_ATTR", "KEYS", "GLOBAL_STATE")
BROKEN.update({f"does not look at {test}": blind(test) for test in _BLIND})


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_checker_is_caught(broken: str) -> None:
    for seed in range(1, 7):
        made = engine.Episode(seed, BROKEN[broken])
        try:
            made.run(10_000)
        except engine.Disagreement:
            return
        finally:
            made.close()
    pytest.fail("it went unnoticed")


def test_a_failure_says_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.run(3, 5_000, 0, make=NeverLooks, shrinking=5) == 1
    printed = capsys.readouterr().out
    assert "python -m tests.fuzz --seed 3 --steps" in printed
    assert "check() says True, exact() False" in printed
    program = printed[printed.index("from tests.fuzz") :]
    assert len(program) < 4_000, "it was not shrunk"
    actions = eval(program[program.index("again(3, ") + len("again(3, ") : -2])
    assert isinstance(engine.replay(3, actions, make=NeverLooks), engine.Disagreement)
    assert engine.replay(3, actions) is None


def test_an_episode_repeats_itself() -> None:
    logs = []
    for _ in range(2):
        made = engine.Episode(5)
        made.run(3_000)
        logs.append(made.log)
        made.close()
    # What dies and comes again does so at other addresses, which single steps may depend on.
    same = sum(one == other for one, other in zip(*logs, strict=False))
    assert same > 0.9 * len(logs[0])


def test_nothing_is_left_of_an_episode() -> None:
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
    assert torch._C._len_torch_function_stack() == 0 and not torch.is_inference_mode_enabled()
