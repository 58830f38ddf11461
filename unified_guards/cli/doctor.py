"""``python -m unified_guards doctor``: whether everything fits on this machine, and what to do where it does not.

Every check is one function that makes one :class:`Finding`, and no check needs another one. So the doctor runs where
torch is missing, where torch is of another version, and where there is no extension.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import unified_guards
from unified_guards import config
from unified_guards._environment import (
    NOT_BUILT,
    Problem,
    is_set,
    logs,
    share_to_verify,
    unknown_variables,
    wrong_python,
)

_ABOUT_JSON = """\
--json prints one object:
  fits      true if nothing is wrong
  version   of unified_guards
  path      where it is
  checks    name -> {state, found, remedy, facts}
The names are python, torch, extension, compiler, layouts, dicts, calls, witness, autoload, environment, and
"self-test DEVICE" for each device. A state is "ok", "note" (nothing is wrong, and there is something to know), "wrong"
or "skipped". found is a sentence, remedy a sentence or null. facts are what the sentence is made of:
  python       version, implementation
  torch        version
  extension    built_for, compiler, torch (versions; null where unknown)
  compiler     path, version
  layouts      dicts, types, tables, monitoring
  dicts        versioned, free_watchers (null before Python 3.12)
  witness      on
  autoload     entry_point, asked_for, torch_allows
  environment  variables
  self-test    decisions, wrong, torch_us, unified_us, saving
More names and facts may be added; these stay. The exit status is 0 if it fits, 1 if not.
"""

State = Literal["ok", "note", "wrong", "skipped"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check; a key of the JSON.
        state: ``"wrong"`` makes the exit status 1.
        found: a sentence.
        remedy: what to do.
        facts: what the sentence is made of, for JSON.
    """

    name: str
    state: State
    found: str
    remedy: str | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        state = self.state.upper() if self.state == "wrong" else self.state
        line = f"{state:<8} {self.name:<16} {self.found}"
        return line if self.remedy is None else f"{line}\n{'':<25} -> {self.remedy}"


def _wrong(name: str, problem: Problem, facts: dict[str, Any]) -> Finding:
    return Finding(name, "wrong", problem.what, problem.remedy, facts)


# ---- what is installed -----------------------------------------------------------------------------------------------


def _python() -> Finding:
    facts = {"version": sys.version.split()[0], "implementation": sys.implementation.name}
    problem = wrong_python()
    if problem is not None:
        return _wrong("python", problem, facts)
    return Finding("python", "ok", f"{facts['version']} ({facts['implementation']})", facts=facts)


def _torch() -> Finding:
    facts: dict[str, Any] = {"version": None}
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            install = f"Run: pip install 'torch=={(_built_for() or '2.13.0').partition('+')[0]}'"
            return Finding("torch", "wrong", "torch is not installed here", install, facts)
        return _broken_torch(error, facts)
    except Exception as error:
        return _broken_torch(error, facts)
    from unified_guards.dynamo import compat

    facts["version"] = str(torch.__version__)
    problem = compat.wrong_torch()
    if problem is not None:
        return _wrong("torch", problem, facts)
    return Finding("torch", "ok", facts["version"], facts=facts)


def _broken_torch(error: Exception, facts: dict[str, Any]) -> Finding:
    what = f"torch is installed and cannot be imported: {_first_line(error)}"
    return Finding("torch", "wrong", what, "Run: pip install --force-reinstall 'torch==2.13.0'", facts)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _build() -> Any:
    """The module that the build writes, or None."""
    try:
        return importlib.import_module("unified_guards._build")
    except ModuleNotFoundError:
        return None


def _built_for() -> str | None:
    found: str | None = getattr(_build(), "TORCH_VERSION", None)
    return found


def _extension(torch_version: str | None, *, may_load: bool) -> Finding:
    built_for, compiler = _built_for(), getattr(_build(), "COMPILER", None)
    facts = {"built_for": built_for, "compiler": compiler, "torch": torch_version}
    if built_for is None:
        return _wrong("extension", NOT_BUILT, facts)
    built = f"built for torch {built_for}" + ("" if compiler is None else f" by {compiler}")
    if not may_load:
        return Finding("extension", "skipped", f"{built}; not loaded before the above is mended", facts=facts)
    from unified_guards.dynamo import compat

    problem = compat.built_for_another_torch(built_for)
    if problem is not None:
        return _wrong("extension", problem, facts)
    broken = _unloadable()
    return Finding("extension", "ok", built, facts=facts) if broken is None else _wrong("extension", broken, facts)


def _unloadable() -> Problem | None:
    """Why the extension cannot be loaded, or its Python files cannot use it; None if they can."""
    try:
        importlib.import_module("unified_guards._C")
    except Exception as error:
        return Problem(f"the extension cannot be loaded: {_first_line(error)}", NOT_BUILT.remedy)
    try:
        importlib.import_module("unified_guards.dynamo.install")
    except Exception as error:
        what = "the extension and the Python files of unified_guards are not of one version"
        return Problem(f"{what}: {_first_line(error)}", NOT_BUILT.remedy)
    return None


def _compiler() -> Finding:
    """The compiler that a build would use. Once the extension is built, nothing needs a compiler."""
    asked_for = shlex.split(os.environ.get("CXX", ""))[:1]
    path = next(filter(None, map(shutil.which, [*asked_for, "c++", "g++", "clang++"])), None)
    if path is None:
        none = "none; only building the extension needs one (g++ 12 or newer, or clang++)"
        return Finding("compiler", "note", none, facts={"path": None, "version": None})
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    version = done.stdout.partition("\n")[0]
    return Finding("compiler", "ok", f"{version} at {path}", facts={"path": path, "version": version})


# ---- how it works here -----------------------------------------------------------------------------------------------


def _free_watchers() -> int | None:
    """How many more extensions may watch dicts; None before Python 3.12."""
    import ctypes

    api = ctypes.pythonapi
    if not hasattr(api, "PyDict_AddWatcher"):
        return None
    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, *[ctypes.c_void_p] * 3)(lambda *_: 0)
    taken: list[int] = []
    try:
        while True:
            taken.append(api.PyDict_AddWatcher(callback))
    except RuntimeError:  # none is left
        pass
    for watcher in taken:
        api.PyDict_ClearWatcher(watcher)
    return len(taken)


#: What is lost where this Python's own structures do not lie as they did when unified_guards was written.
_WITHOUT = {
    "dicts": "dicts are read through the public API",
    "types": "what classes and instances have is evaluated on every call",
    "tables": "a dict that changes is evaluated anew",
    "monitoring": "every call goes through torch's wrapper",
}


def _layouts() -> Finding:
    """What is known of the insides of this Python, by what was seen when the extension was loaded."""
    from unified_guards import _C

    facts = {
        "dicts": _C.DICT_SLOTS,
        "types": _C.TYPE_VERSIONS,
        "tables": _C.DICT_TABLES,
        "monitoring": _C.MONITORS,
    }
    unknown = [name for name, known in facts.items() if not known]
    if not unknown:
        return Finding("layouts", "ok", "dicts, types and monitoring of this Python are as they should be", facts=facts)
    lost = "; ".join(_WITHOUT[name] for name in unknown)
    found = f"decisions are right and slower, since of this Python is not known: {', '.join(unknown)} ({lost})"
    return Finding("layouts", "note", found, "Use a Python that docs/install.md says is tested.", facts)


def _dicts() -> Finding:
    from unified_guards import _C

    versioned, free = _C.dicts_are_versioned(), _free_watchers()
    facts = {"versioned": versioned, "free_watchers": free}
    if versioned:
        how = "every dict has a version" if free is None else f"watched; {free} of eight dict watchers are free"
        return Finding("dicts", "ok", how, facts=facts)
    what = "guards on dicts are evaluated on every call, which is right and slower: "
    if free:
        hides = f"{what}dict watchers are free, and this Python does not tell them of every change"
        return Finding("dicts", "note", hides, "Use a newer patch release of it (3.13.1 for 3.13.0).", facts)
    remedy = "Import unified_guards before the extensions that took the eight dict watchers."
    return Finding("dicts", "note", f"{what}no dict watcher was free", remedy, facts)


def _witness() -> Finding:
    on = is_set("UNIFIED_GUARDS_WITNESS", "1")
    if on:
        return Finding(
            "witness", "ok", "on: what has not changed since a check is not evaluated again", facts={"on": on}
        )
    off = "off, by UNIFIED_GUARDS_WITNESS: every guard is evaluated on every call"
    return Finding("witness", "note", off, "Run: unset UNIFIED_GUARDS_WITNESS", {"on": on})


def _calls() -> Finding:
    """Whether calls of compiled functions go straight to their graph."""
    if not is_set("UNIFIED_GUARDS_DISPATCH", "1"):
        off = "off, by UNIFIED_GUARDS_DISPATCH: every call goes through torch's wrapper"
        return Finding("calls", "note", off, "Run: unset UNIFIED_GUARDS_DISPATCH", {"on": False})
    from unified_guards.dynamo.dispatch import is_known

    if is_known():
        return Finding("calls", "ok", "a hit goes straight from the call to the graph", facts={"on": True})
    unknown = "this torch wraps compiled functions in a way that is not known here: every call goes through its wrapper"
    return Finding("calls", "note", unknown, "Use a release of torch from 2.13 on that is supported.", {"on": False})


def _autoload() -> Finding:
    entries = importlib.metadata.entry_points(group="torch.backends")
    found = any(entry.name == "unified_guards" for entry in entries)
    asked_for = is_set("UNIFIED_GUARDS")
    allowed = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") == "1"
    facts = {"entry_point": found, "asked_for": asked_for, "torch_allows": allowed}
    if asked_for and not allowed:
        what = "UNIFIED_GUARDS is set and does nothing: TORCH_DEVICE_BACKEND_AUTOLOAD switches torch's autoload off"
        return Finding("autoload", "wrong", what, "Run: unset TORCH_DEVICE_BACKEND_AUTOLOAD", facts)
    if not found:
        what = "torch does not find the entry point of unified_guards" + (
            ", so that UNIFIED_GUARDS does nothing" if asked_for else "; UNIFIED_GUARDS=1 would do nothing"
        )
        remedy = "Install it with pip, and not by a path alone: pip install --no-build-isolation ."
        return Finding("autoload", "wrong" if asked_for else "note", what, remedy, facts)
    if asked_for:
        return Finding("autoload", "ok", "on: UNIFIED_GUARDS installs in every program", facts=facts)
    return Finding("autoload", "ok", "off; UNIFIED_GUARDS=1 switches it on for a program", facts=facts)


_OURS = config.variables()
_NOTHING_COMPILES = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE")


def _environment() -> Finding:
    ours = {name: value for name, value in sorted(os.environ.items()) if name.startswith("UNIFIED_GUARD")}
    off = {name: os.environ[name] for name in _NOTHING_COMPILES if is_set(name)}
    facts = {"variables": ours | off}
    shown = ", ".join(f"{name}={value}" for name, value in facts["variables"].items()) or "no switch is set"
    if off:
        what = f"{shown}: torch.compile compiles nothing, so that there are no guards"
        return Finding("environment", "wrong", what, f"Run: unset {' '.join(off)}", facts)
    share = share_to_verify()
    for found in (share, logs()):
        if isinstance(found, Problem):
            return _wrong("environment", found, facts)
    unknown = unknown_variables(_OURS)
    if unknown:
        remedy = " ".join(f"{problem.what[0].upper()}{problem.what[1:]}. {problem.remedy}" for problem in unknown)
        return Finding("environment", "note", shown, remedy, facts)
    if share:
        also = "every check" if share == 1 else f"{share:.4g} of all checks"
        remedy = f"Torch's guards are evaluated too, on {also}. Where time counts, run: unset UNIFIED_GUARDS_VERIFY"
        return Finding("environment", "note", shown, remedy, facts)
    return Finding("environment", "ok", shown, facts=facts)


def _devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{at}" for at in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]


_REPORT = "Report it, with the output of: python -m unified_guards doctor --json"


def _self_test(device: str) -> Finding:
    name = f"self-test {device}"
    try:
        from unified_guards.cli import selftest

        result = selftest.run(device)
    except Exception as error:
        return Finding(name, "wrong", _first_line(error), _REPORT)
    saving = result.torch_us / result.unified_us
    facts = {**dataclasses.asdict(result), "saving": saving}
    if result.wrong:
        return Finding(name, "wrong", "; ".join(result.wrong), _REPORT, facts)
    found = (
        f"{result.decisions} decisions right; a lookup takes {result.torch_us:.2f} µs with torch's guards and "
        f"{result.unified_us:.2f} µs with unified ones ({saving:.1f}x)"
    )
    if saving <= 1:
        slower = f"{found}: not faster than torch's"
        return Finding(name, "note", slower, "What is slow here: see the other notes. Is there none, report it.", facts)
    return Finding(name, "ok", found, facts=facts)


# ---- all of it -------------------------------------------------------------------------------------------------------


def findings() -> Iterator[Finding]:
    """Yields each finding as soon as its check is done."""
    python = _python()
    yield python
    torch = _torch()
    yield torch
    extension = _extension(torch.facts["version"], may_load=python.state == torch.state == "ok")
    yield extension
    yield _compiler()
    usable = all(each.state == "ok" for each in (python, torch, extension))
    if usable:
        yield _layouts()
        yield _dicts()
        yield _calls()
    yield _witness()
    yield _autoload()
    environment = _environment()
    yield environment
    if not usable:
        yield Finding("self-test", "skipped", "until the above is mended")
    elif set(environment.facts["variables"]) & set(_NOTHING_COMPILES):
        yield Finding("self-test", "skipped", "torch.compile is switched off")
    else:
        yield from map(_self_test, _devices())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command."""
    parser.description = "Says whether everything fits on this machine, and what to do where it does not."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _ABOUT_JSON
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(arguments: argparse.Namespace) -> int:
    """Checks everything and prints it; 1 if something is wrong."""
    path = str(Path(unified_guards.__file__).parent)
    show: Callable[[Finding], None] = (lambda _: None) if arguments.json else _print
    show(Finding("unified_guards", "ok", f"{unified_guards.__version__} at {path}"))
    found = []
    for finding in findings():
        show(finding)
        found.append(finding)
    wrong = [finding for finding in found if finding.state == "wrong"]
    if arguments.json:
        checks = {finding.name: _without_name(finding) for finding in found}
        about = {"fits": not wrong, "version": unified_guards.__version__, "path": path}
        print(json.dumps(about | {"checks": checks}, indent=1))
    else:
        print(f"\n{_conclusion(found)}")
    return 1 if wrong else 0


def _conclusion(found: Sequence[Finding]) -> str:
    """One line; a note is never called a fit."""
    wrong, notes = ([each.name for each in found if each.state == state] for state in ("wrong", "note"))
    if wrong:
        return f"Wrong: {', '.join(wrong)}."
    return f"Nothing is wrong; there is something to know of: {', '.join(notes)}." if notes else "Everything fits."


def _print(finding: Finding) -> None:
    print(finding, flush=True)


def _without_name(finding: Finding) -> dict[str, Any]:
    facts = dataclasses.asdict(finding)
    del facts["name"]
    return facts
