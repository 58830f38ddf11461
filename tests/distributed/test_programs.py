"""Sharded models on several processes: results as uncompiled, as many compilations as with torch, on all of them alike,
and no Python function called by a check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SIZES = {
    "tensor_parallel": 2,
    "fsdp_layers": 2,
    "fsdp_whole": 2,
    "fsdp_and_tensor_parallel": 4,
    "ddp_with_graph_breaks": 2,
    "pipeline_stages": 2,
    "guard_collectives": 2,
}


def _run(name: str, file: Path, **environ: str) -> list[dict[str, Any]]:
    """What each process prints."""
    size = SIZES[name]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("UNIFIED_GUARDS")}
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environ}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.programs", name, str(rank), str(size), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
        )
        for rank in range(size)
    ]
    try:
        done = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(errors[-3000:] for _, errors in done)
    return [json.loads(printed.splitlines()[-1]) for printed, _ in done]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_runs_natively_and_compiles_as_often_as_with_torch(name: str, tmp_path: Path) -> None:
    ranks = _run(name, tmp_path / "file")
    for rank in ranks:
        torchs, ours = rank["graphs"]
        assert torchs == ours > 0
        assert rank["graphs"] == ranks[0]["graphs"]
        assert rank["lifted"] > 0
        assert rank["checks"] > 0
        assert rank["left"] == {}
        assert rank["callbacks"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_verdict_is_torchs(name: str, tmp_path: Path) -> None:
    for rank in _run(name, tmp_path / "file", UNIFIED_GUARDS_VERIFY="1"):
        assert rank["compared"] > 0
        assert rank["disagreements"] == []
