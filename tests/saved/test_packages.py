"""Entries that torch's precompile has loaded: Dynamo's lookup asks native checkers for them, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import unified_guards

from ..harness import assert_same, ones
from . import programs
from .saving import installed_package, package_of


def test_all_entries_are_asked_natively(tmp_path: Path) -> None:
    calls = [(ones(8, 4), 3), (ones(8, 4).double(), 3), (ones(8, 4), 4)]
    with unified_guards.installed():
        store = package_of(programs.breaking, tmp_path, *calls)
        before = unified_guards.stats()
        made = installed_package(store, programs.breaking)
        with torch.compiler.set_stance("fail_on_recompile"):
            for x, number in calls:
                assert_same(made(x, number), x * programs.FACTOR + number)
            with pytest.raises(RuntimeError, match="fail_on_recompile"):
                made(ones(9, 4), 3)
    after = unified_guards.stats()
    assert after.frames_left_to_torch == before.frames_left_to_torch
    assert after.hits - before.hits == 2 * len(calls)
    assert after.python_callbacks == before.python_callbacks


def test_a_call_that_no_entry_fits_is_compiled_and_then_reused(tmp_path: Path) -> None:
    with unified_guards.installed():
        installed_package(package_of(programs.breaking, tmp_path, (ones(8, 4), 3)), programs.breaking)
        made = torch.compile(programs.breaking, backend="eager", dynamic=False)
        for x in (ones(9, 4), ones(8, 4), ones(9, 4)):
            assert_same(made(x, 3), x * programs.FACTOR + 3)
        with torch.compiler.set_stance("fail_on_recompile"):
            assert_same(made(ones(9, 4), 3), ones(9, 4) * programs.FACTOR + 3)
    compiled, loaded = (frame.saved is None for frame in unified_guards.explain(programs.breaking).frames[:2])
    assert compiled
    assert not loaded


def test_explain_shows_loaded_entries(tmp_path: Path) -> None:
    with unified_guards.installed():
        installed_package(package_of(programs.breaking, tmp_path, (ones(8, 4), 3)), programs.breaking)
        (frame,) = unified_guards.explain(programs.breaking).frames
    assert frame.saved is not None
    assert frame.saved.loaded
    assert frame.checked


def test_explain_says_which_guards_caching_precompile_drops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with unified_guards.installed():
        store = package_of(programs.scaled, tmp_path, (ones(8, 4), 3))
        installed_package(store, programs.scaled)
        (frame,) = unified_guards.explain(programs.scaled).frames
    assert frame.saved is not None
    assert any("G['opposite']" in text for text in frame.saved.dropped or ())
    assert any("G['opposite'] is dropped" in record.getMessage() for record in caplog.records)


def test_uninstalling_a_package_lets_go_of_its_entries(tmp_path: Path) -> None:
    with unified_guards.installed():
        store = package_of(programs.scaled, tmp_path, (ones(8, 4), 3))
        package, backends = store.load_package(programs.scaled, "package")
        package.install(backends)
        assert len(unified_guards.explain(programs.scaled).frames) == 1
        package.uninstall()
        assert unified_guards.explain(programs.scaled).frames == ()
