"""``python -m unified_guards doctor`` says what does not fit, and what to do. Nothing here is about time."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import _unified_guards_autoload
import unified_guards
from unified_guards.cli import doctor

from . import harness

PACKAGE = Path(unified_guards.__file__).parent

CHECKS = [
    "python",
    "torch",
    "extension",
    "compiler",
    "layouts",
    "dicts",
    "calls",
    "witness",
    "autoload",
    "environment",
    "self-test cpu",
]

TORCH_OF_VERSION = "__version__ = {!r}\n"
NO_TORCH = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
BROKEN_TORCH = "raise OSError('libtorch_cpu.so: cannot open shared object file')\n"
OLD_PYTHON = "import sys; sys.version_info = (3, 9, 18, 'final', 0); sys.version = '3.9.18 (main)'\n"


def run(*arguments: str, environ: dict[str, str] | None = None) -> Any:
    return harness.run_python("-m", "unified_guards", "doctor", *arguments, environ=environ)


def checks_of(done: Any) -> dict[str, Any]:
    """The JSON, whose word on whether all fits is the exit status."""
    said = json.loads(done.stdout)
    assert said["fits"] == (done.returncode == 0)
    return dict(said["checks"])


class Place:
    """A folder that comes first on the path: a copy of the package without its extension, and whatever is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        unbuilt = shutil.ignore_patterns("*.so", "_build.py", "__pycache__")
        shutil.copytree(PACKAGE, folder / "unified_guards", ignore=unbuilt)
        shutil.copy(_unified_guards_autoload.__file__, folder)
        # An editable installation is found by an import hook, before the path is looked at.
        self.put(
            "sitecustomize.py",
            "import sys\n"
            "sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith('_editable')]\n",
        )

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text((path.read_text() if path.exists() else "") + text)

    def built_for(self, version: str) -> None:
        self.put("unified_guards/_build.py", f"TORCH_VERSION = {version!r}\n")

    def doctor(self, *arguments: str) -> Any:
        return run(*arguments, environ={"PYTHONPATH": str(self.folder)})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def done() -> Any:
    """On this machine, for JSON."""
    return run("--json")


class TestWhereAllFits:
    def test_exit_status(self, done: Any) -> None:
        assert done.returncode == 0, done.stdout + done.stderr

    def test_json_has_every_check(self, done: Any) -> None:
        checks = checks_of(done)
        assert list(checks)[: len(CHECKS)] == CHECKS
        for check in checks.values():
            assert list(check) == ["state", "found", "remedy", "facts"]

    def test_json_says_which_copy_was_looked_at(self, done: Any) -> None:
        said = json.loads(done.stdout)
        assert (said["version"], Path(said["path"])) == (unified_guards.__version__, PACKAGE)

    def test_every_decision_of_the_self_test_is_right(self, done: Any) -> None:
        check = checks_of(done)["self-test cpu"]
        assert check["facts"]["wrong"] == []
        assert check["facts"]["decisions"] == 6

    def test_saving_is_measured(self, done: Any) -> None:
        facts = checks_of(done)["self-test cpu"]["facts"]
        assert facts["torch_us"] > 0 and facts["unified_us"] > 0
        assert facts["saving"] == pytest.approx(facts["torch_us"] / facts["unified_us"])

    def test_free_dict_watchers_are_counted(self, done: Any) -> None:
        facts = checks_of(done)["dicts"]["facts"]
        if sys.version_info < (3, 12):
            assert facts == {"versioned": True, "free_watchers": None}
        else:
            assert 0 <= facts["free_watchers"] < 8

    def test_people_get_lines(self) -> None:
        done = run()
        assert done.returncode == 0, done.stdout
        assert [line.split()[0] for line in done.stdout.splitlines() if line][:4] == ["ok"] * 4
        *lines, last = done.stdout.splitlines()
        has_notes = any(line.startswith("note") for line in lines)
        assert last.startswith("Nothing is wrong; ") if has_notes else last == "Everything fits."


class TestMisfits:
    def only_wrong(self, done: Any, name: str) -> Any:
        """The one check that is wrong. There is a line for people that says what to do."""
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        wrong = {key: check for key, check in checks_of(done).items() if check["state"] == "wrong"}
        assert list(wrong) == [name]
        assert "\n" not in wrong[name]["remedy"]
        return wrong[name]

    def test_torch_is_missing(self, place: Place) -> None:
        place.put("torch.py", NO_TORCH)
        place.built_for("2.14.1+cu130")
        check = self.only_wrong(place.doctor("--json"), "torch")
        assert check["found"] == "torch is not installed here"
        assert "pip install 'torch==2.14.1'" in check["remedy"]

    def test_torch_is_broken(self, place: Place) -> None:
        place.put("torch.py", BROKEN_TORCH)
        place.built_for("2.13.0")
        check = self.only_wrong(place.doctor("--json"), "torch")
        assert "libtorch_cpu.so: cannot open" in check["found"]
        assert "pip install --force-reinstall" in check["remedy"]

    @pytest.mark.parametrize("version", ["2.9.1", "2.16.0", "3.0.0+cpu"])
    def test_torch_is_not_supported(self, place: Place, version: str) -> None:
        place.put("torch.py", TORCH_OF_VERSION.format(version))
        place.built_for(version)
        check = self.only_wrong(place.doctor("--json"), "torch")
        assert f"supports torch 2.11 to 2.15 and found {version}" in check["found"]
        assert "pip install 'torch==2.13.0'" in check["remedy"]

    def test_extension_was_built_for_another_torch(self, place: Place) -> None:
        place.put("torch.py", TORCH_OF_VERSION.format("2.13.0"))
        place.built_for("2.12.1")
        check = self.only_wrong(place.doctor("--json"), "extension")
        assert "was built for torch 2.12.1 and this is torch 2.13.0" in check["found"]
        assert "make build" in check["remedy"]
        assert check["facts"]["built_for"] == "2.12.1"

    def test_extension_is_not_built(self, place: Place) -> None:
        place.put("torch.py", TORCH_OF_VERSION.format("2.13.0"))
        check = self.only_wrong(place.doctor("--json"), "extension")
        assert "is not built in this environment" in check["found"]
        assert "pip install --no-build-isolation" in check["remedy"]

    def test_extension_cannot_be_loaded(self, place: Place) -> None:
        place.put("torch.py", TORCH_OF_VERSION.format("2.13.0"))
        place.built_for("2.13.0")
        place.put("unified_guards/_C.py", "raise ImportError('undefined symbol: _ZN5torch')\n")
        (place.folder / "unified_guards/_C.pyi").unlink()
        check = self.only_wrong(place.doctor("--json"), "extension")
        assert "undefined symbol: _ZN5torch" in check["found"]
        assert "pip install --no-build-isolation" in check["remedy"]

    def test_extension_is_older_than_the_python_files(self, place: Place) -> None:
        place.built_for(torch.__version__)
        place.put("unified_guards/_C.py", "OPS = {}\n")
        check = self.only_wrong(place.doctor("--json"), "extension")
        assert "are not of one version" in check["found"]
        assert "make build" in check["remedy"]

    def test_python_is_not_supported(self, place: Place) -> None:
        place.put("sitecustomize.py", OLD_PYTHON)
        place.put("torch.py", TORCH_OF_VERSION.format("2.13.0"))
        place.built_for("2.13.0")
        check = self.only_wrong(place.doctor("--json"), "python")
        assert "supports Python 3.10 to 3.15 and this is 3.9.18" in check["found"]
        assert "python3.11 -m venv" in check["remedy"]

    def test_everything_at_once_is_one_line_each(self, place: Place) -> None:
        place.put("sitecustomize.py", OLD_PYTHON)
        place.put("torch.py", NO_TORCH)
        done = place.doctor()
        assert done.returncode == 1
        assert done.stdout.endswith("Wrong: python, torch, extension.\n")
        remedies = [line.split("-> ")[1] for line in done.stdout.splitlines() if "-> " in line]
        commands = ["python3.11 -m venv", "pip install 'torch==", "pip install --no-build-isolation"]
        assert all(command in remedy for command, remedy in zip(commands, remedies, strict=True))

    def test_self_test_waits_for_what_is_wrong(self, place: Place) -> None:
        place.put("torch.py", NO_TORCH)
        assert checks_of(place.doctor("--json"))["self-test"]["state"] == "skipped"

    def test_other_commands_say_the_same_in_one_sentence(self, place: Place) -> None:
        place.put("torch.py", TORCH_OF_VERSION.format("2.9.1"))
        (place.folder / "program.py").write_text("print('runs')\n")
        program = str(place.folder / "program.py")
        done = harness.run_python("-m", "unified_guards", "run", program, environ={"PYTHONPATH": str(place.folder)})
        assert done.returncode == 1
        assert "found 2.9.1. Run: pip install" in done.stderr
        assert "python -m unified_guards doctor" in done.stderr
        assert "Traceback" not in done.stderr


class TestSwitches:
    """The environment of this process: each check is a function."""

    @pytest.fixture(autouse=True)
    def none_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (*doctor._OURS, *doctor._NOTHING_COMPILES, "TORCH_DEVICE_BACKEND_AUTOLOAD"):
            monkeypatch.delenv(name, raising=False)

    def test_autoload_that_torch_switches_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIFIED_GUARDS", "1")
        monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        found = doctor._autoload()
        assert (found.state, found.remedy) == ("wrong", "Run: unset TORCH_DEVICE_BACKEND_AUTOLOAD")

    @pytest.mark.parametrize(("asked_for", "state"), [("1", "wrong"), ("0", "note")])
    def test_entry_point_that_is_not_found(self, asked_for: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor.importlib.metadata, "entry_points", lambda *, group: ())
        monkeypatch.setenv("UNIFIED_GUARDS", asked_for)
        found = doctor._autoload()
        assert found.state == state
        assert "pip install" in (found.remedy or "")

    @pytest.mark.parametrize(("value", "on"), [(None, False), ("0", False), ("1", True)])
    def test_autoload_that_works(self, value: str | None, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if value is not None:
            monkeypatch.setenv("UNIFIED_GUARDS", value)
        found = doctor._autoload()
        assert found.state == "ok"
        assert found.facts == {"entry_point": True, "asked_for": on, "torch_allows": True}

    @pytest.mark.parametrize("name", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"])
    def test_compilation_that_is_switched_off(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, "1")
        found = doctor._environment()
        assert (found.state, found.remedy) == ("wrong", f"Run: unset {name}")

    def test_switch_that_nobody_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIFIED_GUARD_STRICT", "1")
        found = doctor._environment()
        assert found.state == "note"
        assert "UNIFIED_GUARD_STRICT. Did you mean UNIFIED_GUARDS_STRICT?" in (found.remedy or "")

    def test_verifying(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", "1")
        found = doctor._environment()
        assert (found.state, found.facts) == ("note", {"variables": {"UNIFIED_GUARDS_VERIFY": "1"}})

    @pytest.mark.parametrize(("value", "state"), [(None, "ok"), ("1", "ok"), ("0", "note")])
    def test_witness(self, value: str | None, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if value is not None:
            monkeypatch.setenv("UNIFIED_GUARDS_WITNESS", value)
        assert doctor._witness().state == state

    def test_no_dict_watcher(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unified_guards._C, "dicts_are_versioned", lambda: False)
        found = doctor._dicts()
        assert found.state == "note"
        assert found.remedy is not None

    def test_layout_that_is_not_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DICT_SLOTS", "TYPE_VERSIONS", "DICT_TABLES", "MONITORS"):
            monkeypatch.setattr(unified_guards._C, name, name != "DICT_TABLES")
        found = doctor._layouts()
        assert (found.state, found.facts["tables"]) == ("note", False)
        assert "is not known: tables" in found.found

    def test_a_note_is_no_fit(self) -> None:
        fine, note = doctor.Finding("torch", "ok", "2.13.0"), doctor.Finding("dicts", "note", "slower")
        assert doctor._conclusion([fine]) == "Everything fits."
        assert doctor._conclusion([fine, note]) == "Nothing is wrong; there is something to know of: dicts."

    def test_no_compiler_is_no_mistake(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        found = doctor._compiler()
        assert (found.state, found.facts) == ("note", {"path": None, "version": None})


class TestSelfTest:
    def test_runs_where_the_program_has_switched_unified_guards_on(self) -> None:
        done = run("--json", environ={"UNIFIED_GUARDS": "1"})
        test = checks_of(done)["self-test cpu"]
        assert test["state"] != "wrong", done.stderr  # it is a note where torch's guards were faster
        assert (test["facts"]["decisions"], test["facts"]["wrong"]) == (6, [])

    def test_guards_that_are_not_faster_are_no_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from unified_guards.cli import selftest

        monkeypatch.setattr(selftest, "run", lambda device: selftest.Result(6, (), torch_us=7.9, unified_us=11.6))
        found = doctor._self_test("cpu")
        assert found.state == "note"
        assert found.found.endswith("(0.7x): not faster than torch's")

    def test_wrong_decision_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from unified_guards.cli import selftest

        # A model whose flag nothing reads is not compiled again when the flag changes.
        monkeypatch.setattr(selftest._Layer, "forward", lambda self, x: x * self.scale)
        found = doctor._self_test("cpu")
        assert found.state == "wrong"
        assert found.facts["wrong"] == ("a flag of one layer: not compiled again",)
        assert "doctor --json" in (found.remedy or "")

    def test_error_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = doctor._self_test("no such device")
        assert found.state == "wrong"
        assert "RuntimeError" in found.found


class TestCommandLine:
    def said(self, *arguments: str) -> Any:
        return harness.run_python("-m", "unified_guards", *arguments)

    def test_version(self) -> None:
        done = self.said("--version")
        assert done.stdout.startswith(
            f"unified_guards {unified_guards.__version__} (built for torch {torch.__version__}"
        )

    def test_usage_is_that_of_the_command(self) -> None:
        done = self.said("doctor", "--jsno")
        assert done.returncode == 2
        assert "usage: python -m unified_guards doctor" in done.stderr
        assert "python -m unified_guards doctor: error: unrecognized arguments: --jsno" in done.stderr

    def test_error_of_a_program_is_shown_as_python_shows_it(self, tmp_path: Path) -> None:
        program = tmp_path / "program.py"
        program.write_text("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('mine')\n")
        done, plain = self.said("run", str(program)), harness.run_python(str(program))
        assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)

    def test_error_in_a_program_is_shown_by_what_the_program_gives_for_that(self, tmp_path: Path) -> None:
        program = tmp_path / "program.py"
        shows = "sys.excepthook = lambda kind, error, trace: print(error, trace.tb_frame.f_code.co_filename)"
        program.write_text(f"import sys\n{shows}\nraise ValueError('mine')\n")
        done = self.said("run", str(program))
        assert (done.returncode, done.stdout) == (1, f"mine {program}\n")
