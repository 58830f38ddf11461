"""Every kind of guard and accessor that torch has, built by hand on its guard-manager classes (see ``cases/``).

Each kind is shown objects that pass, fail, are missing, have a wrong type, or raise; the native checker, the reference
evaluator and torch's own tree must agree. Where torch would throw, crash or leave an error pending (``unsafe`` in
``building.py``), torch is not asked, and the other two must say no.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._C._dynamo import guards as native

import unified_guards
from unified_guards.dynamo import lift as lifting
from unified_guards.dynamo import tap
from unified_guards.guards import semantics
from unified_guards.guards.ir import Test
from unified_guards.guards.serialize import dumps, loads

from .building import EXERCISED, KINDS, Built, Case, add, below, local
from .cases.accessors import IS_3, a_global
from .cases.dict_managers import dict_manager
from .cases.tensors import add_tensor_guard
from .cases.thread_state import pack


def shown_cases() -> list[Any]:
    return [
        pytest.param(make, label, id=f"{name}-{label.replace(' ', '_')}")
        for name, make in KINDS.items()
        for label in make().shown
    ]


@pytest.mark.parametrize(("make", "label"), shown_cases())
def test_native_reference_and_torch_agree(make: Callable[[], Case], label: str) -> None:
    case = make()
    built, shown = case.built(), case.shown[label]
    with shown.under():
        verdicts = built.verdicts(shown.f_locals, ask_torch=shown.safe)
    assert verdicts == dict.fromkeys(verdicts, shown.holds)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in KINDS.items()])
def test_one_checker_asked_in_turn_forgets_what_it_saw(make: Callable[[], Case]) -> None:
    case = make()
    built = case.built()
    for shown in [*case.shown.values(), *reversed(case.shown.values())]:
        with shown.under():
            assert built.checkers[0].check(shown.f_locals) is shown.holds


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in KINDS.items()])
def test_a_set_from_json_never_accepts_what_the_set_rejects(make: Callable[[], Case]) -> None:
    case = make()
    built = case.built()
    loaded = loads(dumps(built.guard_set))
    for shown in case.shown.values():
        with shown.under():
            assert shown.holds or not semantics.evaluate(loaded, shown.f_locals)


def test_every_guard_and_accessor_of_this_torch_is_exercised() -> None:
    classes = (native.GuardManager, native.RootGuardManager, native.DictGuardManager)
    known = {(cls.__name__, method) for cls in classes for method in tap.recorded_methods(cls)}
    refused = {("DictGuardManager", method) for method in REFUSED}
    assert known - EXERCISED - refused == set()


def test_every_case_uses_only_what_it_says() -> None:
    used = set()
    with unified_guards.installed():
        for make in KINDS.values():
            with tap.recording() as records:
                root = native.RootGuardManager()
                held = make().build(root)
            used |= {record[0] for record in records}
            del held
    called = {method for _, method in EXERCISED} - {"add_tensor_match_guard"}
    assert used == called | {tap.TENSOR_FACTS} | set(tap._FUNCTIONS)


#: What torch refuses to put on the manager of a dict whose keys are guarded.
REFUSED: dict[str, dict[str, Any]] = {
    "lambda_manager": {"python_lambda": pack},
    "getitem_manager": {"key": "a"},
    "dict_getitem_manager": {"key": "a"},
    "globals_dict_manager": {"f_globals": {}},
    "tuple_iterator_getitem_manager": {"index": 0},
    "global_weakref_manager": {"global_name": "a"},
}


@pytest.mark.parametrize("method", REFUSED)
def test_what_torch_refuses_on_a_dict_manager_is_not_recorded(method: str) -> None:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 1})
        with pytest.raises((RuntimeError, TypeError)):
            below(manager, method, **REFUSED[method])

    built = Built(build)
    assert [item.test for item in built.guard_set] == [Test.TYPE_IS, Test.DICT_LENGTH]


def test_a_leaf_guard_that_is_not_known_asks_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lifting.LEAF_GUARDS, "add_not_none_guard")
    built = Built(lambda root: add(local(root), "add_not_none_guard"))
    assert [item.test for item in built.guard_set] == [Test.TORCH_LEAF]
    for value, holds in ((3, True), (None, False)):
        verdicts = built.verdicts({"x": value}, ask_torch=True)
        assert verdicts == dict.fromkeys(verdicts, holds)


def test_an_accessor_that_is_not_known_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lifting._CHILD, "grad_manager")
    with pytest.raises(lifting.CannotLift, match="grad_manager"):
        Built(lambda root: below(local(root), "grad_manager"))


def test_no_recording_outside_of_install() -> None:
    with tap.recording() as records:
        root = native.RootGuardManager()
        add(local(root), "add_none_match_guard")
    assert records == []


def test_none_is_a_key_and_a_value_like_any_other() -> None:
    """In a process of its own: the checker must not take None for nothing and read through it."""
    script = """
        from tests.kinds.building import Built, add, below, local

        for build, value in (
            (lambda root: below(local(root), "dict_getitem_manager", key=None), {None: 3}),
            (lambda root: below(local(root), "getitem_manager", key=None), {None: 3}),
            (lambda root: add(local(root), "add_equals_match_guard", None), None),
            (lambda root: add(local(root), "add_dict_contains_guard", True, None), {None: 3}),
            (lambda root: add(local(root), "add_set_contains_guard", True, None), {None}),
        ):
            built = Built(build)
            for shown, holds in ((value, True), (3, False)):
                verdicts = built.verdicts({"x": shown}, ask_torch=True)
                assert verdicts == dict.fromkeys(verdicts, holds), (built.guard_set, verdicts)
    """
    root = __file__.rpartition("tests")[0]
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"


def test_an_exception_of_torchs_leaves_no_torch_function_state_behind() -> None:
    built = Built(lambda root: add_tensor_guard(local(root), torch.ones(2)))
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert not built.checkers[0].check({"x": nested})
    assert torch._C._is_torch_function_enabled()


def test_a_python_guard_below_the_frame_runs_without_torch_functions() -> None:
    seen: list[bool] = []

    def build(root: Any) -> None:
        add(root, "add_lambda_guard", lambda f_locals: seen.append(torch._C._is_torch_function_enabled()) or True)
        add(local(root), "add_lambda_guard", lambda x: seen.append(torch._C._is_torch_function_enabled()) or True)

    built = Built(build)
    for ask in (built.root.check, built.checkers[0].check, lambda f: semantics.evaluate(built.guard_set, f)):
        seen.clear()
        assert ask({"x": 1})
        assert seen == [True, False]


def test_the_first_guard_that_fails_is_explained() -> None:
    def build(root: Any) -> None:
        add(local(root, "x"), "add_type_match_guard", id(int))
        add(local(root, "y"), *IS_3)

    built = Built(build)
    first, second = built.guard_set
    assert semantics.explain_failure(built.guard_set, {"x": 1.0, "y": 4}) is first
    assert semantics.explain_failure(built.guard_set, {"x": 1, "y": 4}) is second
    assert semantics.explain_failure(built.guard_set, {"x": 1, "y": 3}) is None


def test_given_globals_replace_the_captured_ones() -> None:
    built = a_global().built()
    assert semantics.evaluate(built.guard_set, {})
    assert not semantics.evaluate(built.guard_set, {}, {"g": 4})
    assert semantics.evaluate(built.guard_set, {}, {"g": 3})
