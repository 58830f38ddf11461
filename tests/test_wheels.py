"""A wheel says which torch it is for, requires it, fits its other builds, and has nothing of torch's inside."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

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
    pythons = range(_environment.FIRST_PYTHON[1], _environment.AFTER_LAST_PYTHON[1])
    assert done.stdout.split() == [f"cp3{minor}-{machine}" for machine in machines for minor in pythons]


def test_the_workflow_builds_for_every_supported_torch() -> None:
    workflow = yaml.safe_load((CHECKOUT / ".github/workflows/wheels.yml").read_text())
    (major, first), (_, after) = compat.FIRST_TORCH, compat.AFTER_LAST_TORCH
    built = workflow["jobs"]["wheels"]["strategy"]["matrix"]["torch"]
    assert built == [f"{major}.{minor}" for minor in range(first, after)]
