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
from unified_guards.bench.registry import WORKLOADS
from unified_guards.bench.script import attribute
from unified_guards.bench.steps import Call, steps_of
from unified_guards.bench.verdict import Cost, judge
from unified_guards.cli import bench
from unified_guards.dynamo import dispatch

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

#: Two functions, each called thirty times, each of one graph.
ONE_GRAPH = """
import torch
first = torch.compile(lambda x: x + 1, backend="eager")
second = torch.compile(torch.nn.Linear(3, 3), backend="eager")
with torch.no_grad():
    for _ in range(30):
        second(first(torch.ones(3)))
"""


class TestScript:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
        """A program whose function is compiled in two parts and called forty times: the process, and its JSON."""
        folder = tmp_path_factory.mktemp("program")
        (folder / "program.py").write_text(PROGRAM)
        done = run("--rounds", "1", "--json", str(folder / "out.json"), "--script", str(folder / "program.py"), "40")
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

    def test_steps_are_found_between_calls_and_none_that_was_measured_counts(self, measured: Any) -> None:
        for sample in measured[1]["samples"]:
            assert sample["step"]["begins_with"] == "halves"
            assert sample["step"]["calls"] == 1
            assert 0 < sample["step"]["number"] < 30

    def test_rest_of_calls_with_several_graphs_is_not_known(self, measured: Any) -> None:
        assert [sample["step"]["beside_us"] for sample in measured[1]["samples"]] == [None, None]
        assert "What the rest of its calls takes is not known: they have several graphs" in measured[0].stdout

    def test_verdict_is_given(self, measured: Any) -> None:
        verdict = measured[1]["step"]["verdict"]
        assert f"{verdict.capitalize()}: guards are " in measured[0].stdout
        assert "A step lasts from one call of halves to the next" in measured[0].stdout

    def test_graph_breaks_are_told(self, measured: Any) -> None:
        assert "Graph breaks: 1." in measured[0].stdout

    def test_output_of_the_program_is_not_mixed_in(self, measured: Any) -> None:
        assert "printed by the program" not in measured[0].stdout + measured[0].stderr

    def test_calls_go_straight_to_their_graph_while_they_are_measured(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(ONE_GRAPH)
        done = run("--rounds", "1", "--json", str(tmp_path / "out.json"), "--script", str(tmp_path / "program.py"))
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "out.json").read_text())
        torchs, ours = found["samples"]
        assert torchs["short_ways"] == 0
        # All but the two first, which compile, and those under the profiler, which go torch's way.
        assert not dispatch.is_known() or ours["short_ways"] == 60 - 2 - ours["measured_calls"]
        assert found["step"]["calls"] == 2
        assert 0 <= found["step"]["torch"]["rest"] < found["step"]["torch"]["step"]

    def test_short_program_is_run_more_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "_run", lambda _, backend: {"backend": backend, "frames": [1]})
        order = [one["backend"] for one in compare.measure(Program("train.py", []), rounds=None)]
        assert order == ["torch", "unified", "unified", "torch", "torch", "unified"]

    def test_long_program_is_run_once_with_each_kind_of_guards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "_run", lambda _, backend: {"backend": backend, "frames": [1]})
        monkeypatch.setattr(compare, "_MORE_ROUNDS", ((-1.0, 3),))
        order = [one["backend"] for one in compare.measure(Program("train.py", []), rounds=None)]
        assert order == ["torch", "unified"]

    def test_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "as_module.py").write_text("import sys\nassert sys.argv[1:] == ['--own', 'flag']\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        done = run("--script", "-m", "as_module", "--own", "flag")
        assert done.returncode == bench.NOT_MEASURED, done.stderr
        assert "-m as_module --own flag compiles nothing" in done.stdout

    def test_program_that_calls_compiled_code_too_rarely(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(PROGRAM)
        done = run("--script", str(tmp_path / "program.py"), "4")
        assert done.returncode == bench.NOT_MEASURED
        assert "was not measured: found were 4 calls of compiled code, 3 of them after the last" in done.stdout
        assert "Needed are 6 after it, and 30 are good. Have it take 27 more steps;" in done.stdout

    def test_program_that_switches_itself_on(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("import unified_guards; unified_guards.install()\n" + PROGRAM)
        done = run("--script", str(tmp_path / "program.py"), "10")
        assert done.returncode == bench.NOT_MEASURED
        assert "installs unified guards itself" in done.stdout

    def test_program_that_raises(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text("def fail():\n    raise ValueError('from the program')\n\n\nfail()\n")
        done = run("--script", str(tmp_path / "program.py"))
        assert done.returncode == 1
        assert "ValueError: from the program" in done.stderr
        assert "line 2, in fail" in done.stderr
        assert "runpy" not in done.stderr and "unified_guards/" not in done.stderr
        assert "ended with exit status 1, with torch's guards" in done.stderr

    def test_profiler_that_measures_says_nothing_above_a_users_traceback(self, tmp_path: Path) -> None:
        (tmp_path / "program.py").write_text(f"{PROGRAM}\nraise ValueError('from the program')\n")
        done = run("--script", str(tmp_path / "program.py"), "20")
        assert "ValueError: from the program" in done.stderr
        assert "USDT" not in done.stderr

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
        {"id": at, "name": f"f{at}", "guards": 5, "checks": 4, "build_s": 0.5, "lookups": lookups, "lookup_us": micros}
        for at, lookups, micros in frames
    ]
    good = {"backend": backend, "calls": 100, "measured_calls": 10, "frames": found, "graph_breaks": 0}
    good |= {"step": None, "short_ways": 0, "quiet_calls": 4}
    return good | {"frames_left": {}, "lifted": len(found) if backend == "unified" else 0, "gave_up": None} | facts


def compared(*samples: dict[str, Any]) -> Comparison:
    return Comparison(Program("train.py", ["--fast"]), samples)


class TestComparison:
    def test_a_call_costs_all_its_lookups(self) -> None:
        found = compared(
            sample("torch", ("0/0", 20, 7.0), ("1/0", 10, 6.0)), sample("unified", ("0/0", 20, 2.0), ("1/0", 10, 1.0))
        )
        assert (found.torch.lookups_per_call, found.torch.us_per_call, found.saved_us) == (3, 20, 15)
        assert "Lookups take 15.0 µs less per call, 0.0015 s less in 100 calls." in str(found)
        assert "UNIFIED_GUARDS=1 python train.py --fast" in str(found)

    def test_guards_and_checks_are_those_that_explain_counts(self) -> None:
        torchs, ours = sample("torch", ("0/0", 10, 2.0)), sample("unified", ("0/0", 10, 1.0))
        torchs["frames"][0] |= {"guards": 7, "checks": None}
        assert compared(torchs, ours).frame_rows()[0][:3] == ["f0/0 [0/0]", "5", "4"]

    def test_rounds_give_medians(self) -> None:
        runs = [sample("torch", ("0/0", 10, micros)) for micros in (1.0, 2.0, 90.0)]
        assert compared(*runs, sample("unified", ("0/0", 10, 1.0))).torch.us_per_call == 2

    def test_nothing_saved_is_said(self) -> None:
        said = str(compared(sample("torch", ("0/0", 10, 1.0)), sample("unified", ("0/0", 10, 3.0))))
        assert "save nothing here: the lookups of a call take 2.0 µs more" in said
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
            (sample("torch"), "compiles nothing"),
            (sample("torch", ("0/0", 0, 0.0), measured_calls=0), "found were 100 calls of compiled code, 4 of them"),
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


class TestVerdict:
    def told(self, torch: Cost, unified: Cost) -> str:
        return "\n".join(judge(torch, unified).lines())

    def test_guards_that_are_nothing_of_a_step(self) -> None:
        said = self.told(Cost(50_000, (49_900, 50_100), 100, 10), Cost(50_000, (49_900, 50_100), 10, 1))
        assert "Not worth it: guards are 0.2 % of your step of 50,000 µs" in said

    def test_guards_and_calls_that_are_much_of_a_step(self) -> None:
        found = judge(Cost(1000, (990, 1010), 200, 100), Cost(720, (710, 730), 20, 5))
        assert (found.verdict, found.by_parts) == ("worth it", 0.275)
        assert "Together that saves 28 % of a step, and the whole step is 28 % shorter." in "\n".join(found.lines())

    def test_a_little_is_hardly_worth_it(self) -> None:
        assert judge(Cost(1000, (990, 1010), 30, None), Cost(980, (970, 990), 5, None)).verdict == "hardly worth it"

    def test_a_step_that_waits_for_something_else_is_no_shorter(self) -> None:
        found = judge(Cost(1000, (999, 1001), 200, 0), Cost(1000, (999, 1001), 20, 0))
        assert found.verdict == "not worth it"
        assert "it waits for something else meanwhile" in "\n".join(found.lines())

    def test_a_step_that_is_much_shorter_than_its_parts_say_is_believed(self) -> None:
        found = judge(Cost(1000, (999, 1001), 20, 0), Cost(800, (799, 801), 10, 0))
        assert found.verdict == "worth it"
        assert "more than these parts" in "\n".join(found.lines())

    def test_steps_that_vary_by_more_than_is_saved_do_not_contradict_it_without_a_word(self) -> None:
        said = self.told(Cost(1000, (900, 1100), 80, 0), Cost(1010, (900, 1100), 10, 0))
        assert "medians of half a run vary by 20 %, so that the parts say it better than the whole" in said
        assert "the whole step is 1.0 % longer" in said

    def test_lookups_that_are_faster_while_the_step_is_not_are_explained(self) -> None:
        sides = [
            {"workload": "w", "backend": backend, "memory": False, "lookup_us": lookup, "step_us": 1000.0}
            for backend, lookup in (("torch", 100.0), ("unified", 10.0))
        ]
        (said,) = bench._words(runner.summarise(sides))
        assert said == "w: lookups are 10.0x as fast and the whole step 1.00x, because guards are 10 % of it."


class TestSteps:
    def steps(self, keys: str, broken: int | None = None) -> Any:
        return steps_of([Call(key, at * 1000, at >= (broken or 10**6)) for at, key in enumerate(keys)])

    def test_begin_with_what_is_called_first_of_what_is_called_the_least_often(self) -> None:
        found = self.steps("abb" * 5)
        assert (found.key, found.us, found.calls) == ("a", [3.0] * 4, {"a": 1, "b": 2})

    def test_do_not_begin_with_what_is_hardly_ever_called(self) -> None:
        found = self.steps("e" + "ab" * 60 + "e")
        assert (found.key, len(found.us)) == ("a", 59)

    def test_with_a_compilation_in_between_count_for_nothing(self) -> None:
        assert len(self.steps("a" * 10, broken=5).us) == 8

    def test_are_not_known_where_there_are_too_few(self) -> None:
        assert self.steps("aaa") is None
        assert self.steps("") is None


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
        good = {"workload": "mlp", "backend": "torch", "memory": False, "leaf_guards": 9, "lookups_per_step": 1}
        table = bench._table(runner.summarise([good | {"lookup_us": 4.0, "step_us": 9.0, "guard_build_s": 1.0}]))
        cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
        assert cells == ["mlp", "-", "-", "1", "4", "-", "-", "9", "-", "44 % / -", "-"]


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
            (["--polt", "out.png"], "python -m unified_guards bench: error: unrecognized arguments: --polt out.png"),
            (["--plot", "out.pdf"], "--plot writes .png or .svg, and was given 'out.pdf'"),
        ],
    )
    def test_are_explained_before_anything_is_measured(
        self, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert said in self.said(capsys, *given)

    def test_help_names_the_workloads(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            command_line.main(["bench", "--help"])
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in WORKLOADS)

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
