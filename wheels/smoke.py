"""What a wheel does where only torch and it are installed: ``python -I wheels/smoke.py``. Needs nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import torch

import unified_guards

PROGRAM = """
import torch
compiled = torch.compile(lambda x: x + 1, backend="eager")
for _ in range(3):
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
import unified_guards
assert unified_guards.is_installed()
assert unified_guards.stats().hits > 0, unified_guards.stats()
"""


def installed_from_a_wheel() -> None:
    checkout = Path(__file__).resolve().parents[1]
    found = Path(unified_guards.__file__).resolve()
    assert found.parent.parent != checkout, f"this is the source tree, not a wheel: {found}"
    minor = ".".join(torch.__version__.split(".")[:2])
    requires = metadata.requires("unified_guards") or []
    assert f"torch=={minor}.*" in requires, f"the wheel requires {requires} and this is torch {torch.__version__}"
    assert metadata.version("unified_guards") == f"{unified_guards.__version__}+torch{minor}"


def guards_hold_and_fail() -> None:
    layer = torch.nn.Linear(4, 4)
    layer.scale = 1
    with unified_guards.installed():
        compiled = torch.compile(lambda x: layer(x) * layer.scale, backend="eager")
        for scale in (1, 1, 1, 2, 2, 1):
            layer.scale = scale
            x = torch.ones(2, 4)
            assert torch.equal(compiled(x), layer(x) * scale)
        frames = unified_guards.explain(compiled).frames
    stats = unified_guards.stats()
    assert len(frames) == 2, f"expected one compilation for each scale, found {len(frames)}"
    assert stats.hits >= 4, stats
    assert not stats.frames_left_to_torch, stats


def aot_functions_are_guarded() -> None:
    def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
        return graph

    factor = 2.0
    double = unified_guards.aot_function(lambda x: x * factor, backend)
    assert torch.equal(double(torch.ones(3)), torch.full((3,), 2.0))
    factor = 3.0
    assert torch.equal(double(torch.ones(3)), torch.full((3,), 3.0))


def unchanged_programs_are_run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program.py")
        program.write_text(PROGRAM)
        for arguments, switch in ((["-m", "unified_guards", "run"], "0"), ([], "1")):
            command = [sys.executable, *arguments, str(program)]
            environment = {**os.environ, "UNIFIED_GUARDS": switch}
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}, UNIFIED_GUARDS={switch}:\n{done.stderr}"


def doctor_finds_that_it_fits() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unified_guards", "doctor"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


CHECKS = (
    installed_from_a_wheel,
    guards_hold_and_fail,
    aot_functions_are_guarded,
    unchanged_programs_are_run,
    doctor_finds_that_it_fits,
)

if __name__ == "__main__":
    for check in CHECKS:
        check()
        print(f"{check.__name__.replace('_', ' ')}: yes")
