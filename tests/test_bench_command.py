"""``python -m unified_guards bench``: its workloads, a user's own program, mistakes. Nothing here is about time."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import unified_guards.bench.workloads  # noqa: F401  (registers them)
from unified_guards import __main__ as command_line
from unified_guards.bench import compare, plots, runner
from unified_guards.bench.compare import Comparison, Program
from unified_guards.bench.script import attribute

from . import harness


def run(*arguments: str) -> Any:
    return harness.run_python("-m", "unified_guards", "bench", *arguments)


# ---- a user's own program --------------------------------------------------------------------------------------------

PROGRAM = """
import sys, torch

def halves(x):
    y = x + 1
    torch._dynamo.graph_break()
    return y * 2

compiled = torch.compile(halves, backend="eager")
for _ in range(int(sys.argv[1])):
    compiled(torch.ones(3))
print("printed by the program")
"""


class TestScript:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
        """A program whose function is compiled in two parts and called forty times: the process, and its JSON."""
        folder = tmp_path_factory.mktemp("program")
        (folder / "program.py").write_text(PROGRAM)
        done = run("--json", str(folder / "out.json"), "--script", str(folder / "program.py"), "40")
        return done, json.loads((folder / "out.json").read_text())

    def test_exit_status(self, measured: Any) -> None:
        assert measured[0].returncode == 0, measured[0].stderr

    def test_both_backends_see_the_same_calls_and_lookups(self, measured: Any) -> None:
        _, found = measured
        assert [sample["backend"] for sample in found["samples"]] == ["torch", "unified"]
        for sample in found["samples"]:
            assert sample["calls"] == 40
            assert [frame["id"] for frame in sample["frames"]] == ["0/0", "1/0"]
            assert [frame["lookups"] for frame in sample["frames"]] == [sample["measured_calls"]] * 2
            assert sample["measured_calls"] > 0

    def test_each_run_has_the_guards_it_should(self, measured: Any) -> None:
        assert [sample["lifted"] for sample in measured[1]["samples"]] == [0, 2]

    def test_json_has_what_was_saved(self, measured: Any) -> None:
        _, found = measured
        assert found["nothing_to_compare"] is None
        assert found["torch"]["lookups_per_call"] == found["unified"]["lookups_per_call"] == 2
        assert found["saved_us_per_call"] == found["torch"]["us_per_call"] - found["unified"]["us_per_call"]
        assert found["environment"]["torch"]

    def test_table_names_the_frames(self, measured: Any) -> None:
        said = measured[0].stdout
        assert "halves (program.py:4) [0/0]" in said
        assert "lookups in all, 40 calls (ms)" in said

    def test_graph_breaks_are_told(self, measured: Any) -> None:
        assert "Graph breaks: 1." in measured[0].stdout

    def test_output_of_the_program_is_not_mixed_in(self, measured: Any) -> None:
        assert "printed by the program" not in measured[0].stdout + measured[0].stderr

    def test_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "as_module.py").write_text("import sys\nassert sys.argv[1:] == ['--own', 'flag']\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        done = run("--script", "-m", "as_module", "--own", "flag")
        assert done.returncode == 0, done.stderr
        assert "-m as_module --own flag compiles nothing with torch.compile" in done.stdout

    def test_program_that_calls_compiled_code_too_rarely(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(PROGRAM)
        done = run("--script", str(tmp_path / "program.py"), "4")
        assert done.returncode == 0
        assert "calls compiled code 4 times: too few to measure" in done.stdout

    def test_program_that_switches_itself_on(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("import unified_guards; unified_guards.install()\n" + PROGRAM)
        done = run("--script", str(tmp_path / "program.py"), "10")
        assert done.returncode == 0
        assert "installs unified guards itself" in done.stdout

    def test_program_that_raises(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("def fail():\n    raise ValueError('from the program')\n\n\nfail()\n")
        done = run("--script", str(tmp_path / "program.py"))
        assert done.returncode == 1
        assert "ValueError: from the program" in done.stderr
        assert "line 2, in fail" in done.stderr
        assert "ended with exit status 1, with torch's guards" in done.stderr

    @pytest.mark.parametrize(
        ("ends", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
    )
    def test_exit_status_is_passed_on(self, ends: str, status: int, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(ends)
        done = run("--script", str(tmp_path / "program.py"))
        assert done.returncode == status
        assert f"ended with exit status {status}" in done.stderr

    def test_program_that_leaves_without_cleaning_up(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("import os; os._exit(0)")
        done = run("--script", str(tmp_path / "program.py"))
        assert done.returncode == 1
        assert "os._exit()" in done.stderr


# ---- what the figures of a program mean ------------------------------------------------------------------------------


def sample(backend: str, *frames: tuple[str, int, float], **facts: Any) -> dict[str, Any]:
    """A run of 100 calls, 10 of them measured. Frames: (id, lookups in those ten, µs of each)."""
    found = [
        {"id": at, "name": f"f{at}", "guards": 5, "build_s": 0.5, "lookups": lookups, "lookup_us": micros}
        for at, lookups, micros in frames
    ]
    good = {"backend": backend, "calls": 100, "measured_calls": 10, "frames": found, "graph_breaks": 0}
    return good | {"frames_left": {}, "lifted": len(found) if backend == "unified" else 0, "gave_up": None} | facts


def compared(*samples: dict[str, Any]) -> Comparison:
    return Comparison(Program("train.py", ["--fast"]), samples)


class TestComparison:
    def test_a_call_costs_all_its_lookups(self) -> None:
        found = compared(
            sample("torch", ("0/0", 20, 7.0), ("1/0", 10, 6.0)), sample("unified", ("0/0", 20, 2.0), ("1/0", 10, 1.0))
        )
        assert (found.torch.lookups_per_call, found.torch.us_per_call, found.saved_us) == (3, 20, 15)
        assert "save 15.0 µs per call, 0.0015 s in 100 calls." in str(found)
        assert "UNIFIED_GUARDS=1 python train.py --fast" in str(found)

    def test_rounds_give_medians(self) -> None:
        runs = [sample("torch", ("0/0", 10, micros)) for micros in (1.0, 2.0, 90.0)]
        assert compared(*runs, sample("unified", ("0/0", 10, 1.0))).torch.us_per_call == 2

    def test_nothing_saved_is_said(self) -> None:
        said = str(compared(sample("torch", ("0/0", 10, 1.0)), sample("unified", ("0/0", 10, 3.0))))
        assert "save nothing here: a call takes 2.0 µs more" in said
        assert "UNIFIED_GUARDS=1" not in said

    def test_building_is_earned_back(self) -> None:
        slower = sample("unified", ("0/0", 10, 1.0))
        slower["frames"][0]["build_s"] = 0.501
        said = str(compared(sample("torch", ("0/0", 10, 11.0)), slower))
        assert "0.001 s more, once: earned back after 101 calls" in said

    def test_frames_left_to_torch_are_told(self) -> None:
        left = sample("unified", ("0/0", 10, 1.0), frames_left={"no native form": 2})
        assert "2 frames, because: no native form" in str(compared(sample("torch", ("0/0", 10, 2.0)), left))

    @pytest.mark.parametrize(
        ("theirs", "said"),
        [
            (sample("torch"), "compiles nothing with torch.compile"),
            (sample("torch", ("0/0", 0, 0.0), measured_calls=0), "calls compiled code 100 times: too few"),
            (sample("torch", ("0/0", 0, 0.0)), "looks up no guards"),
            (sample("torch", ("0/0", 0, 0.0), gave_up="Profiler is already enabled"), "has a profiler of its own"),
            (sample("torch", ("0/0", 10, 1.0), lifted=1), "installs unified guards itself"),
        ],
    )
    def test_nothing_to_compare_has_a_reason(self, theirs: dict[str, Any], said: str) -> None:
        found = compared(theirs, theirs | {"backend": "unified"})
        assert said in (found.nothing_to_compare() or "")
        assert found.as_dict()["saved_us_per_call"] is None
        assert str(found) == found.nothing_to_compare()


class TestAttribution:
    LOOKUP, REGION = "TorchDynamo Cache Lookup", "Torch-Compiled Region: "

    def test_lookup_belongs_to_the_region_after_it(self) -> None:
        events = [
            (self.LOOKUP, 3.0),
            ("aten::add", 1.0),
            (self.REGION + "0/0", 9.0),
            (self.LOOKUP, 4.0),
            (self.REGION + "1/0", 9.0),
        ]
        assert attribute(events) == {"0/0": [3.0], "1/0": [4.0]}

    def test_lookup_that_finds_nothing(self) -> None:
        events = [(self.LOOKUP, 3.0), (self.LOOKUP, 4.0), (self.REGION + "0/0", 9.0), (self.LOOKUP, 5.0)]
        assert attribute(events) == {None: [3.0, 5.0], "0/0": [4.0]}

    def test_region_without_a_lookup(self) -> None:
        assert attribute([(self.REGION + "0/0", 9.0), ("aten::add", 1.0)]) == {}


# ---- workloads -------------------------------------------------------------------------------------------------------


TORCH_ALONE = """
import sys
sys.modules["transformers"] = sys.modules["numpy"] = None
import torch
import unified_guards.bench.workloads
from unified_guards.bench.registry import NEEDS, WORKLOADS
for name in (name for name in WORKLOADS if name not in NEEDS):
    work = WORKLOADS[name]()
    with torch.set_grad_enabled(work.grad):
        torch.testing.assert_close(work.step(), work.eager())
    print(name)
"""


class TestWorkloads:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
        """The smallest of them: the process, and the folder of its files."""
        folder = tmp_path_factory.mktemp("bench")
        files = ["--json", str(folder / "out.json")]
        if plots.is_possible():
            files += ["--plot", str(folder / "out.svg")]
        return run("--only", "x_plus_y", "--rounds", "1", "--steps", "2", *files), folder

    def test_exit_status(self, measured: Any) -> None:
        assert measured[0].returncode == 0, measured[0].stderr

    def test_table_has_a_row(self, measured: Any) -> None:
        rows = [line for line in measured[0].stdout.splitlines() if line.startswith("| ")]
        assert [row.split("|")[1].strip() for row in rows] == ["workload", "x_plus_y"]

    def test_json_has_both_sides(self, measured: Any) -> None:
        found = json.loads((measured[1] / "out.json").read_text())
        assert found["problems"] == []
        assert list(found["medians"]["x_plus_y"]) == ["torch", "unified"]
        assert found["environment"]["torch"]

    def test_plot(self, measured: Any) -> None:
        if not plots.is_possible():
            pytest.skip("no matplotlib: pip install --group bench")
        assert "<svg" in (measured[1] / "out.svg").read_text()

    def test_run_with_torch_alone(self) -> None:
        done = harness.run_python("-c", TORCH_ALONE)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["x_plus_y", "mlp", "encoder_12", "adamw_200"]

    def test_side_that_failed_is_a_dash(self) -> None:
        from unified_guards.cli import bench

        good = {"workload": "mlp", "backend": "torch", "memory": False, "leaf_guards": 9, "lookups_per_step": 1}
        table = bench._table(runner.summarise([good | {"lookup_us": 4.0, "step_us": 9.0, "guard_build_s": 1.0}]))
        cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
        assert cells == ["mlp", "9", "1", "4", "-", "-", "9", "-", "-"]


# ---- mistakes --------------------------------------------------------------------------------------------------------


class TestMistakes:
    def said(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            command_line.main(["bench", *arguments])
        assert error.value.code == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["--only", "mpl"], "no workload is called 'mpl'; there are x_plus_y, mlp, "),
            (["--script", "nowhere.py"], "there is no file 'nowhere.py' in "),
            (["--script", "-m", "no_such_module"], "there is no module named 'no_such_module'"),
            (["--script"], "--script needs a program"),
            (["--script", "-m"], "--script needs a program"),
            (["--only", "mlp", "--script", "train.py"], "with --script there is only your program"),
            (["--rounds", "0"], "--rounds and --steps are 1 or more"),
            (["--json", "/no/such/folder/out.json"], "there is no folder '/no/such/folder'"),
            (["--plot", "out.pdf"], "--plot writes .png or .svg, and was given 'out.pdf'"),
        ],
    )
    def test_are_explained_before_anything_is_measured(
        self, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert said in self.said(capsys, *given)

    @pytest.mark.parametrize(
        ("package", "given"), [("matplotlib", ["--plot", "out.png"]), ("transformers", ["--only", "qwen3_36"])]
    )
    def test_missing_package(
        self, package: str, given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
        assert f"Run: pip install {package}" in self.said(capsys, *given)


@pytest.mark.parametrize("suffix", plots.SUFFIXES)
def test_comparison_is_drawn(suffix: str, tmp_path: Path) -> None:
    if not plots.is_possible():
        pytest.skip("no matplotlib: pip install --group bench")
    found = compared(sample("torch", ("0/0", 10, 9.0)), sample("unified", ("0/0", 10, 2.0)))
    plots.draw(tmp_path / f"plot{suffix}", found.panels(), columns=1)
    start = (tmp_path / f"plot{suffix}").read_bytes()[:5]
    assert start == {".png": b"\x89PNG\r", ".svg": b"<?xml"}[suffix]


def test_runs_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_run", lambda _, backend: {"backend": backend})
    order = [one["backend"] for one in compare.measure(Program("train.py", []), rounds=2)]
    assert order == ["torch", "unified", "unified", "torch"]
