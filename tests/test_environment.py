"""Where unified_guards cannot work it says so in one message, with the command that mends it; torch goes on working."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import _unified_guards_autoload
from unified_guards import _environment, config

from . import harness

PACKAGE = Path(importlib.util.find_spec("unified_guards").origin).parent
CHECKOUT = Path(__file__).resolve().parents[1]

USES_TORCH = """
run = torch.compile(lambda x: x * 2, backend="eager")
assert torch.equal(run(torch.ones(3)), torch.ones(3) * 2)
print("torch works")
"""

#: What is wrong with the environment: how to pretend, what is found, what mends it.
PROBLEMS = {
    "extension missing": (
        "pass",
        "the extension of unified_guards is not built in this environment",
        "pip install --no-build-isolation",
    ),
    "extension built for another torch": (
        "open(copy + '/unified_guards/_build.py', 'w').write('TORCH_VERSION = \"2.12.1\"')",
        f"was built for torch 2.12.1 and this is torch {torch.__version__}",
        "make build",
    ),
    "torch too old": (
        "torch.__version__ = torch.torch_version.TorchVersion('2.9.1')",
        "supports torch 2.11 to 2.15 and found 2.9.1",
        "pip install 'torch==2.13.0'",
    ),
    "torch too new": (
        "torch.__version__ = torch.torch_version.TorchVersion('3.0.0+cpu')",
        "supports torch 2.11 to 2.15 and found 3.0.0+cpu",
        "pip install 'torch==2.13.0'",
    ),
    "Python too old": (
        "import torch._dynamo; sys.version_info = (3, 9, 18, 'final', 0); sys.version = '3.9.18 (main)'",
        "supports Python 3.10 to 3.15 and this is 3.9.18",
        "python3.11 -m venv",
    ),
}


@pytest.fixture
def without_extension(tmp_path: Path) -> str:
    """The first lines of a program that finds a copy of the package in which no extension is built."""
    copy = tmp_path / "copy"
    unbuilt = shutil.ignore_patterns("*.so", "_build.py", "__pycache__")
    shutil.copytree(PACKAGE, copy / "unified_guards", ignore=unbuilt)
    shutil.copy(_unified_guards_autoload.__file__, copy)
    return f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
copy = {str(copy)!r}
sys.path.insert(0, copy)
import torch
"""


@pytest.mark.parametrize("problem", PROBLEMS)
def test_import_says_what_was_found_and_what_to_do(problem: str, without_extension: str) -> None:
    pretend, found, command = PROBLEMS[problem]
    done = harness.run_python("-c", f"{without_extension}\n{pretend}\nimport unified_guards")
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError")]
    assert found in message
    assert command in message


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if name != "Python too old"])
def test_torch_goes_on_working_with_one_warning(problem: str, without_extension: str) -> None:
    pretend, found, command = PROBLEMS[problem]
    program = f"{without_extension}\n{pretend}\n{USES_TORCH}"
    done = harness.run_python("-c", program, environ={"UNIFIED_GUARDS": "1"})
    assert done.returncode == 0, done.stderr
    assert "torch works" in done.stdout
    (message,) = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert "UNIFIED_GUARDS is set, but" in message
    assert found in message
    assert command in message
    assert "Traceback" not in done.stderr


def test_torch_goes_on_working_where_warnings_are_errors(without_extension: str) -> None:
    strict = "import warnings; warnings.filterwarnings('error', message='UNIFIED_GUARDS')"
    program = f"{without_extension}\n{strict}\n{USES_TORCH}"
    done = harness.run_python("-c", program, environ={"UNIFIED_GUARDS": "1"})
    assert done.returncode == 0, done.stderr
    assert "torch works" in done.stdout
    assert done.stderr.count("UNIFIED_GUARDS is set, but") == 1


@pytest.mark.parametrize(
    "imports",
    [
        "import torch, torch._dynamo",
        "import torch; from torch._dynamo.guards import CheckFunctionManager",
        "import torch._dynamo.guards",
        "import unified_guards",
        "import torch, unified_guards",
        "import torch._dynamo, unified_guards",
        "import torch; torch.compile(lambda x: x, backend='eager')(torch.ones(1))",
    ],
)
def test_autoload_whatever_is_imported_first(imports: str) -> None:
    program = f"""
import sys
{imports}
unified_guards = sys.modules["unified_guards"]
assert unified_guards.is_installed()
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "_unified_guards_autoload"]
assert "exec_module" not in vars(sys.modules["torch._dynamo"].__loader__)
unified_guards.uninstall()
assert not unified_guards.is_installed()
print("installed")
"""
    done = harness.run_python("-c", program, environ={"UNIFIED_GUARDS": "1"})
    assert done.returncode == 0, done.stderr
    assert "installed" in done.stdout
    assert "UNIFIED_GUARDS" not in done.stderr


def test_autoload_leaves_dynamo_alone_until_it_is_needed() -> None:
    program = "import sys, torch; print('torch._dynamo' in sys.modules, 'unified_guards' in sys.modules)"
    done = harness.run_python("-c", program, environ={"UNIFIED_GUARDS": "1"})
    assert done.stdout.split() == ["False", "False"], done.stderr


@pytest.mark.parametrize("value", [None, "", "0", "off"])
def test_autoload_does_nothing_when_unset(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIFIED_GUARDS", raising=False)
    if value is not None:
        monkeypatch.setenv("UNIFIED_GUARDS", value)
    before = list(sys.meta_path), set(sys.modules)
    _unified_guards_autoload.autoload()
    assert (sys.meta_path, set(sys.modules)) == before


def _configure(tmp_path: Path, compiler: Path) -> str:
    """What CMake prints when it is to build with ``compiler``."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    cmake, ninja = shutil.which("cmake", path=places), shutil.which("ninja", path=places)
    if not (cmake and ninja and (CHECKOUT / "CMakeLists.txt").exists()):
        pytest.skip("needs a checkout, cmake and ninja")
    options = ["-S", str(CHECKOUT), "-B", str(tmp_path / "build"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    done = subprocess.run(
        [cmake, *options, f"-DPython_EXECUTABLE={sys.executable}"],
        env={**os.environ, "CXX": str(compiler)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return " ".join(done.stderr.split())  # CMake breaks lines where it likes


def test_no_compiler(tmp_path: Path) -> None:
    said = _configure(tmp_path, tmp_path / "no-such-compiler")
    assert "needs a C++20 compiler and found none" in said
    assert "apt-get install g++" in said


def test_compiler_too_old(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++, which is told to pretend that it is an old one")
    old = tmp_path / "g++-11"
    old.write_text('#!/bin/sh\nexec g++ -U__GNUC__ -D__GNUC__=11 "$@"\n')
    old.chmod(0o755)
    said = _configure(tmp_path, old)
    assert "needs g++ 12 or newer and found 11" in said
    assert "CXX=g++-12" in said


MISSPELT = {"UNIFIED_GUARDS_STRCT": "1"}
TOLD = "nothing reads the environment variable UNIFIED_GUARDS_STRCT. Did you mean UNIFIED_GUARDS_STRICT?"


@pytest.mark.parametrize("options", [[], ["-W", "error"]], ids=["warnings", "warnings are errors"])
def test_variable_that_nothing_reads_is_told_once(options: list[str]) -> None:
    program = "import unified_guards; unified_guards.install(); unified_guards.install(); print('goes on')"
    done = harness.run_python(*options, "-c", program, environ=MISSPELT)
    assert "goes on" in done.stdout, done.stderr
    assert done.stderr.count(TOLD) == 1


def test_variable_that_nothing_reads_is_told_by_a_command_before_it_does_anything(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys; print('goes on', file=sys.stderr)")
    done = harness.run_python("-m", "unified_guards", "run", str(tmp_path / "program.py"), environ=MISSPELT)
    assert done.stderr == f"unified_guards: {TOLD}\ngoes on\n"


def test_variables_that_are_read_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.variables():
        monkeypatch.setenv(name, "0")
    assert _environment.unknown_variables(config.variables()) == []


@pytest.mark.parametrize(
    ("statement", "variables"),
    [
        ("import unified_guards", {}),
        ("from unified_guards import config", {}),
        ("import unified_guards.report.explain", {}),
        ("torch.compile(lambda x: x + 1, backend='eager')(torch.ones(3))", {"UNIFIED_GUARDS": "1"}),
    ],
)
def test_warning_of_an_unknown_variable_points_to_the_users_line(
    statement: str, variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(f"import torch\n\n{statement}\n")
    done = harness.run_python(str(tmp_path / "program.py"), environ={**MISSPELT, **variables})
    (line,) = (line for line in done.stderr.splitlines() if TOLD in line)
    assert line.startswith(f"{tmp_path / 'program.py'}:3: UserWarning: "), done.stderr
