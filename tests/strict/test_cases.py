"""What torch's own guards miss, and ``install(strict=True)`` does not: every case of ``cases_of/``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.guards import semantics

from . import cases_of  # noqa: F401 - fills CASES
from .cases import CASES, Case
from .running import compiled, entries, is_right, settings


@pytest.fixture(params=CASES)
def each(request: pytest.FixtureRequest) -> Iterator[Case]:
    made = CASES[request.param]()
    changed = made.change
    done: list[None] = []

    def change() -> None:
        done.append(changed())

    made.change = change
    yield made
    if done:
        made.undo()


def test_plain_torch_gives_a_stale_result(each: Case) -> None:
    """An honest demonstration: torch alone."""
    with settings(each):
        call = compiled(each)
        assert is_right(each, call)
        each.change()
        assert is_right(each, call) is not each.stale


@pytest.mark.parametrize("verify", ["", "1"], ids=["", "verified"])
def test_strict_guards_notice(each: Case, verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", verify)
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "1")
    with unified_guards.installed(strict=True):
        call = compiled(each)
        assert is_right(each, call) and is_right(each, call)
        assert len(entries(each)) == 1, "what has not changed is compiled again"
        each.change()
        assert is_right(each, call)
        newest, oldest = entries(each)
        (miss,) = oldest.recompilations
        why = miss.text
        assert each.named in why
        if each.stale:
            assert why.endswith("# strict")
        hits = newest.checker.counts[1]
        assert is_right(each, call) and is_right(each, call)
        assert len(entries(each)) == 2, "it is compiled again and again"
        assert entries(each)[0].checker.counts[1] == hits + 2


def test_torch_tells_the_reason(each: Case) -> None:
    """What ``TORCH_LOGS=recompiles`` prints, and ``error_on_recompile`` raises."""
    with unified_guards.installed(strict=True):
        call = compiled(each)
        assert is_right(each, call)
        each.change()
        with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(Exception) as caught:
            each.use(call)
    assert "triggered by the following guard failure(s)" in str(caught.value)
    assert "Unexpected recompilation" not in str(caught.value)
    assert not each.stale or "# strict" in str(caught.value)


def test_both_evaluators_agree(each: Case) -> None:
    """On what was compiled, before and after the change."""
    wrappers: list[Any] = []
    seen: list[dict[str, Any]] = []

    def note(wrapper: Any, scope: dict[str, Any], builder: Any) -> None:
        wrappers.append(wrapper)
        seen.append(dict(scope))

    torch._dynamo.guards.guard_manager_testing_hook_fn = note
    try:
        with unified_guards.installed(strict=True):
            call = compiled(each)
            each.use(call)
            each.change()
            each.use(call)
    finally:
        torch._dynamo.guards.guard_manager_testing_hook_fn = None
    assert len(wrappers) >= 2
    for wrapper in wrappers:
        for f_locals in seen:
            native = wrapper.entry.checker.check(f_locals)
            assert semantics.evaluate(wrapper.entry.guard_set, f_locals) is native
            assert semantics.evaluate(wrapper.entry.checked, f_locals) is native


def test_without_strict_the_decision_is_torchs(each: Case) -> None:
    with settings(each), unified_guards.installed():
        call = compiled(each)
        assert is_right(each, call)
        assert all("strict" not in entry.guard_set.counts_by_provenance() for entry in entries(each))
        each.change()
        assert is_right(each, call) is not each.stale
