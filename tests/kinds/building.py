"""What a case of a kind is: guards on a tree of torch's, objects to show it, and what is to be said of each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native

import unified_guards
from unified_guards.dynamo import lift as lifting
from unified_guards.dynamo import tap
from unified_guards.guards import semantics
from unified_guards.guards.ir import GuardSet
from unified_guards.lower.rows import lower, make_checker
from unified_guards.simplify.driver import simplify

PLAIN = torch_guards.GuardManagerType.GUARD_MANAGER
DICT = torch_guards.GuardManagerType.DICT_GUARD_MANAGER
NOTHING = object()

#: (class, method) pairs that some test below calls: filled while the tables are written down.
EXERCISED: set[tuple[str, str]] = set()


def below(manager: Any, method: str, **given: Any) -> Any:
    """The child that an accessor makes. Without an example, torch takes no shortcuts through dict tags."""
    given = {"source": f"{method}{given}", "example_value": None, "guard_manager_enum": PLAIN, **given}
    return getattr(manager, method)(**given)


def local(root: Any, name: str = "x", **given: Any) -> Any:
    return below(root, "framelocals_manager", key=(name, 0), **given)


def add(manager: Any, method: str, *args: Any) -> None:
    getattr(manager, method)(*args, [method], None)


class Built:
    """A tree of torch's and what was made of it."""

    def __init__(self, build: Callable[[Any], object]) -> None:
        with unified_guards.installed(), tap.recording() as records:
            self.root = native.RootGuardManager()
            self.held = build(self.root)
        self.guard_set: GuardSet = lifting.lift(records, self.root).guard_set
        self.checkers = [make_checker(lower(guards)) for guards in (self.guard_set, simplify(self.guard_set)[0])]

    def verdicts(self, f_locals: dict[str, Any], *, ask_torch: bool) -> dict[str, bool]:
        found = {
            "native": self.checkers[0].check(f_locals),
            "native, simplified": self.checkers[1].check(f_locals),
            "native, once more": self.checkers[0].check(f_locals),
            "reference": semantics.evaluate(self.guard_set, f_locals),
        }
        if ask_torch:
            found["torch"] = self.root.check(f_locals)
            found["torch, verbose"] = self.root.check_verbose(f_locals).result
        return found


@dataclasses.dataclass
class Shown:
    """A set of locals, and what is to be said of it."""

    f_locals: dict[str, Any]
    holds: bool
    safe: bool = True
    under: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclasses.dataclass
class Case:
    """What to build, and what to show it, by label."""

    build: Callable[[Any], object]
    shown: dict[str, Shown] = dataclasses.field(default_factory=dict)
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext  # where it is built

    def built(self) -> Built:
        with self.around():
            return Built(self.build)

    def show(self, label: str, f_locals: dict[str, Any], holds: bool, **more: Any) -> Case:
        self.shown[label] = Shown(f_locals, holds, **more)
        return self


Values = dict[str, Any]


def values(
    build: Callable[[Any], object], passes: Values, fails: Values, unsafe: Values | None = None, name: str = "x"
) -> Case:
    """A case about one local. That it is missing is always among what is shown."""
    case = Case(build)
    for label, value in passes.items():
        case.show(label, {name: value}, True)
    for label, value in fails.items():
        case.show(label, {name: value}, False)
    for label, value in (unsafe or {}).items():
        case.show(f"unsafe: {label}", {name: value}, False, safe=False)
    return case.show("missing", {}, False)


def leaf(method: str, *args: Any, passes: Values, fails: Values, unsafe: Values | None = None) -> Case:
    return values(lambda root: add(local(root), method, *args), passes, fails, unsafe)


def accessor(
    method: str, leaf_args: tuple[Any, ...], passes: Values, fails: Values, unsafe: Values | None = None, **given: Any
) -> Case:
    """An accessor on a local, with one leaf guard (method and arguments) on what it reaches."""

    def build(root: Any) -> None:
        add(below(local(root), method, **given), *leaf_args)

    return values(build, passes, fails, unsafe)


KINDS: dict[str, Callable[[], Case]] = {}


def kind(
    *methods: str, cls: str = "GuardManager", since: str | None = None
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Registers a case, which uses the given methods of a class; skipped where this torch lacks one of them."""

    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        if all(hasattr(getattr(native, cls), method) for method in methods):
            EXERCISED.update((cls, method) for method in methods)
            KINDS[make.__name__] = make
        return make

    return register
