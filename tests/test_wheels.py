"""A wheel says which torch it is for, requires it, fits its other builds, and has nothing of torch's inside."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from unified_guards import _environment
from unified_guards.dynamo import compat

CHECKOUT = Path(__file__).resolve().parents[1]
SETTINGS = {"torch": ">=2.11,<2.16"}
PROJECT = {"version": "0.1.0"}


def _load(name: str) -> ModuleType:
    path = CHECKOUT / "wheels" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"needs a checkout: there is no {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what the metadata says ------------------------------------------------------------------------------------------


def _metadata(monkeypatch: pytest.MonkeyPatch, state: str, installed: str | None, for_torch: str = "") -> dict:
    module = _load("torch_metadata")

    def version(_name: str) -> str:
        if installed is None:
            raise PackageNotFoundError("torch")
        return installed

    monkeypatch.setattr(module, "version", version)
    monkeypatch.setenv(module.FOR_TORCH, for_torch)
    provider = module.Provider()
    provider.build_state(state)
    return provider.dynamic_metadata(SETTINGS, PROJECT)


@pytest.mark.parametrize("state", ["wheel", "editable", "metadata_wheel", "metadata_editable"])
def test_what_is_built_requires_the_minor_of_the_installed_torch(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _metadata(monkeypatch, state, "2.13.1+cu130") == {"dependencies": ["torch==2.13.*"]}


def test_a_wheel_to_be_given_away_has_its_torch_in_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _metadata(monkeypatch, "wheel", "2.13.0+cpu", for_torch="2.13")
    assert found == {"version": "0.1.0+torch2.13", "dependencies": ["torch==2.13.*"]}


@pytest.mark.parametrize("for_torch", ["", "2.13"])
def test_an_sdist_is_for_every_torch_whatever_is_installed(for_torch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _metadata(monkeypatch, "sdist", "2.12.0", for_torch) == {"dependencies": ["torch>=2.11,<2.16"]}


def test_without_torch_the_range_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _metadata(monkeypatch, "metadata_wheel", None) == {"dependencies": ["torch>=2.11,<2.16"]}


@pytest.mark.parametrize(("installed", "said"), [("2.12.0", "torch 2.12 is installed"), (None, "is not installed")])
def test_a_wheel_for_another_torch_than_the_installed_one_is_refused(
    installed: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"pip install 'torch==2\.13\.\*'") as raised:
        _metadata(monkeypatch, "wheel", installed, for_torch="2.13")
    assert said in str(raised.value)


def test_the_required_range_is_what_the_package_supports() -> None:
    stated = re.search(r'^torch = "(.*)"$', (CHECKOUT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    (first, last), (after, after_minor) = compat.FIRST_TORCH, compat.AFTER_LAST_TORCH
    assert stated and stated[1] == f">={first}.{last},<{after}.{after_minor}"


# ---- which torch it fits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("built_for", "running", "fits"),
    [
        ("2.13.0+cpu", "2.13.0+cu130", True),
        ("2.13.0+cpu", "2.13.1", True),
        ("2.13.0+cpu", "2.12.0+cpu", False),
        ("2.13.0+cpu", "2.14.0+cpu", False),
        ("2.13.0", "2.13.0a0+git1234567", False),
        ("2.13.0.dev20260101", "2.13.0.dev20260102", False),
        ("2.13.0a0+git1234567", "2.13.0a0+git1234567", True),
    ],
)
def test_releases_of_one_minor_fit_one_another(
    built_for: str, running: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", running)
    monkeypatch.setattr(compat, "TORCH", compat.version_of(running))
    assert (compat.built_for_another_torch(built_for) is None) == fits


# ---- what is inside --------------------------------------------------------------------------------------------------


def _wheel(folder: Path, **more: bytes) -> Path:
    # Not for Linux by its name: what it is linked to is for `make wheel`, which has a real one.
    wheel = folder / "unified_guards-0.1.0+torch2.13-cp311-cp311-macosx_14_0_arm64.whl"
    inside = {
        "unified_guards/__init__.py": b"",
        "unified_guards/_build.py": b"",
        "unified_guards/_C.cpython-311-darwin.so": b"",
        "unified_guards-0.1.0+torch2.13.dist-info/METADATA": b"",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**inside, **more}.items():
            archive.writestr(name, content)
    return wheel


def test_a_wheel_of_the_package_alone_is_accepted(tmp_path: Path) -> None:
    assert list(_load("check").problems(_wheel(tmp_path))) == []


@pytest.mark.parametrize(
    "name", ["unified_guards.libs/libtorch_cpu-1234.so", "unified_guards/.dylibs/libc10.dylib", "tests/conftest.py"]
)
def test_anything_else_inside_is_refused(name: str, tmp_path: Path) -> None:
    (problem,) = _load("check").problems(_wheel(tmp_path, **{name: b""}))
    assert problem.startswith(f"{name} is inside")


def test_a_wheel_of_three_megabytes_is_refused(tmp_path: Path) -> None:
    (problem,) = _load("check").problems(_wheel(tmp_path, **{"unified_guards/big.py": os.urandom(3_000_000)}))
    assert "expected less than 3,000,000" in problem


# ---- the matrix ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "machines"),
    [("linux", ["manylinux_x86_64", "manylinux_aarch64"]), ("macos", ["macosx_arm64"])],
)
def test_cibuildwheel_builds_every_python_on_every_machine(platform: str, machines: list[str]) -> None:
    if importlib.util.find_spec("cibuildwheel") is None:
        pytest.skip("needs cibuildwheel: pip install --group wheel")
    done = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform, str(CHECKOUT)],
        env={key: value for key, value in os.environ.items() if not key.startswith("CIBW_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pythons = [python.replace(".", "") for python in _load("every_python").PYTHONS]
    assert done.stdout.split() == [f"cp{python}-{machine}" for machine in machines for python in pythons]


def test_no_python_that_is_supported_lacks_a_wheel_but_the_newest() -> None:
    """Of Python 3.15 there is a torch, and no release of cibuildwheel that is known to build for it."""
    pythons = [int(python.partition(".")[2]) for python in _load("every_python").PYTHONS]
    assert pythons == [*range(_environment.FIRST_PYTHON[1], 15)]
    assert _environment.AFTER_LAST_PYTHON == (3, 16)


def test_no_wheel_is_wanted_for_a_python_without_that_torch() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/wheels.yml").read_text())
    skipped = {each["skip"]: each["torch"] for each in workflow["jobs"]["wheels"]["strategy"]["matrix"]["include"]}
    lacking = {
        f"cp{python.replace('.', '')}-*": f"{major}.{minor + 1}"
        for python, (major, minor) in _load("every_python").LAST_TORCH.items()
    }
    assert skipped == lacking


def test_the_workflow_builds_for_every_supported_torch() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/wheels.yml").read_text())
    (major, first), (_, after) = compat.FIRST_TORCH, compat.AFTER_LAST_TORCH
    built = workflow["jobs"]["wheels"]["strategy"]["matrix"]["torch"]
    assert built == [f"{major}.{minor}" for minor in range(first, after)]


# ---- `make wheel` does what cibuildwheel does ------------------------------------------------------------------------


@pytest.fixture
def in_containers() -> dict[str, Any]:
    """What cibuildwheel is told."""
    tomllib = pytest.importorskip("tomllib", reason="there is none before Python 3.11")
    project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return project["tool"]["cibuildwheel"]


@pytest.fixture
def here() -> list[list[str]]:
    """The commands of `make wheel`, in order."""
    if not (CHECKOUT / "Makefile").exists():
        pytest.skip("needs a checkout: there is no Makefile")
    command = ["make", "-n", "wheel", "TORCH=2.13.0", "WHEEL_TESTS="]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.replace("\\\n", " ").splitlines()]


def _after(commands: list[list[str]], *words: str) -> list[str]:
    """What follows these words in the only command that has them."""
    found = [
        command[at + len(words) :]
        for command in commands
        for at in range(len(command))
        if tuple(command[at : at + len(words)]) == words
    ]
    assert len(found) == 1, f"{words} stands in {len(found)} commands"
    return found[0]


def _excluded(arguments: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(arguments) if option == "--exclude"]


def test_the_same_libraries_are_left_out(here: list[list[str]], in_containers: dict[str, Any]) -> None:
    commands = [shlex.split(command) for command in in_containers["linux"]["repair-wheel-command"]]
    theirs, ours = _excluded(_after(commands, "auditwheel", "repair")), _excluded(_after(here, "auditwheel", "repair"))
    assert theirs
    assert ours == theirs


def test_a_repaired_wheel_is_checked_by_the_same_program(here: list[list[str]], in_containers: dict[str, Any]) -> None:
    repair, check = in_containers["linux"]["repair-wheel-command"]
    assert check == "python {project}/wheels/check.py {dest_dir}/*.whl"
    folder = _after(here, "auditwheel", "repair")[-2]
    assert repair.endswith("-w {dest_dir} {wheel}")
    assert _after(here, "wheels/check.py") == [f"{folder}/*.whl"]


def test_a_wheel_is_tried_by_the_same_program(here: list[list[str]], in_containers: dict[str, Any]) -> None:
    assert in_containers["test-command"] == "python -I {project}/wheels/smoke.py"
    assert _after(here, "-I", "wheels/smoke.py") == []


def test_both_build_against_the_torch_that_is_installed_and_name_it(
    here: list[list[str]], in_containers: dict[str, Any]
) -> None:
    assert in_containers["build-frontend"]["args"] == ["--no-build-isolation"]
    assert in_containers["linux"]["environment-pass"] == ["UNIFIED_GUARDS_FOR_TORCH"]
    (build,) = [command for command in here if "UNIFIED_GUARDS_FOR_TORCH=2.13" in command]
    assert "--no-isolation" in build


def test_both_build_with_the_same_tools(here: list[list[str]], in_containers: dict[str, Any]) -> None:
    *_, tools = in_containers["before-build"]
    assert tools == "pip install --group {project}/pyproject.toml:tools"
    made = (CHECKOUT / "Makefile").read_text()
    (needed,) = [line for line in made.splitlines() if line.startswith("wheel:")]
    assert "$(STAMPS)/tools" in needed
