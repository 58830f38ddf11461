"""What one process saves and another loads, each with unified guards or without: every way gives the same answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ..harness import run_python

ROOT = Path(__file__).parents[2]


def _run(what: str, folder: Path, **environ: str) -> Any:
    done = run_python("-m", "tests.saved.process", what, str(folder), environ={"PYTHONPATH": str(ROOT), **environ})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["torch", "unified"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was saved, with unified guards or without."""
    made = tmp_path_factory.mktemp(request.param)
    _run("save", made, UNIFIED_GUARDS=str(int(request.param == "unified")))
    return made


@pytest.fixture(scope="module")
def torchs(folder: Path) -> Any:
    """The answers of torch's own guards."""
    told, (lifted, *_) = _run("load", folder, UNIFIED_GUARDS="0")
    assert lifted == 0
    return told


@pytest.mark.parametrize("verify", ["0", "1"])
def test_loaded_guards_answer_natively_as_torch_does(folder: Path, torchs: Any, verify: str) -> None:
    told, (lifted, hits, misses, callbacks, left) = _run(
        "load", folder, UNIFIED_GUARDS="1", UNIFIED_GUARDS_VERIFY=verify
    )
    assert told == torchs
    answers = [answer for group in told.values() for answer in group]
    assert {type(answer) for answer in answers} == {float, str}, "some calls fit and some do not"
    assert lifted == 7  # three functions, and two entries of each part of the one with a graph break
    assert hits >= sum(type(answer) is float for answer in answers)
    assert misses >= sum(type(answer) is str for answer in answers)
    assert callbacks == 0
    assert left == {}


def test_what_was_saved_does_not_need_this_package(folder: Path) -> None:
    assert os.listdir(folder)
    for file in folder.rglob("*"):
        if file.is_file():
            assert b"unified_guards." not in file.read_bytes()
