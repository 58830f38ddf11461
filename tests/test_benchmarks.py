"""The command line of `benchmarks.witness`, on its smallest case. Nothing here is about time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import interleaved, witness, workloads
from benchmarks.contenders import CONTENDERS, EXACT, OPTIONS, TORCH, UNIFIED
from benchmarks.witness_parts import PARTS, TIERS
from unified_guards.bench import plots, runner
from unified_guards.bench.registry import names_for

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `call` writes for `x + y`: suffix -> file."""
    folder = tmp_path_factory.mktemp("results")
    given = ["call", "--cases", "x_plus_y", "--rounds", "1", "--steps", "1", "--out", str(folder)]
    assert witness.main(given) == 0
    return {path.suffix: path for path in folder.iterdir()}


class TestCall:
    def test_table_has_a_row_for_each_contender(self, written: dict[str, Path]) -> None:
        rows = [line for line in written[".md"].read_text().splitlines() if line.startswith("| x_plus_y")]
        names = [row.split("|")[2].strip() for row in rows]
        assert names == ["torch", "unified", "exact", "another empty root", "empty root"]

    def test_page_says_how_it_was_made(self, written: dict[str, Path]) -> None:
        page = written[".md"].read_text()
        assert "`python -m benchmarks.witness call --cases x_plus_y --rounds 1 --steps 1" in page
        assert "All results equal eager's" in page

    def test_samples_are_kept(self, written: dict[str, Path]) -> None:
        content = json.loads(written[".json"].read_text())
        assert content["problems"] == []
        assert {sample["backend"] for sample in content["samples"]} >= {"torch", "unified", "exact"}

    def test_plot(self, written: dict[str, Path]) -> None:
        if not plots.is_possible():
            pytest.skip("no matplotlib: pip install --group bench")
        assert "<svg" in written[".svg"].read_text()


def sample(backend: str, **facts: object) -> dict[str, object]:
    """One that has nothing wrong with it."""
    good = {"workload": "qwen3_4", "backend": backend, "equal": True, "compiles": 1, "lifted": 9, "frames_left": {}}
    return good | {"memory": False, "leaf_guards": 9, "lookup_us": 4.0, "hot_us": 2.0} | facts


class TestProblems:
    @pytest.mark.parametrize("contender", [UNIFIED, EXACT])
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"equal": False}, "differs from eager"),
            ({"compiles": 2}, "number of compiles differs"),
            ({"frames_left": {"no native form": 1}}, "frames left to torch"),
        ],
    )
    def test_are_reported(self, contender: object, wrong: dict[str, object], said: str) -> None:
        sides = [sample(one.name, **(wrong if one is contender else {})) for one in (TORCH, UNIFIED, EXACT)]
        found = witness.problems(runner.summarise(sides))
        assert len(found) == 1 and said in found[0], found

    def test_none(self) -> None:
        assert witness.problems(runner.summarise([sample(name) for name in TIERS])) == []


class TestDevices:
    def test_a_workload_for_cuda_is_unknown_on_a_cpu(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", ["benchmarks.workloads", "qwen3_36_graphs"])
        with pytest.raises(SystemExit):
            workloads.main()
        assert "no workload called qwen3_36_graphs on cpu; there are x_plus_y, " in capsys.readouterr().err
        assert "qwen3_36_graphs" in names_for("cuda:1")

    def test_a_device_that_torch_does_not_know_is_refused_before_anything_runs(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.argv", ["benchmarks.workloads", "mlp", "--device", "gpu"])
        with pytest.raises(SystemExit):
            workloads.main()
        assert "--device gpu: Expected one of cpu, cuda" in capsys.readouterr().err

    def test_children_are_told_the_device(self) -> None:
        child = runner.Child("module", options=("--device=cuda:0",))
        assert "--device=cuda:0" in child.command(runner.Job("mlp", "torch", 0, memory=True), steps=3)


class TestTables:
    def test_what_was_not_measured_is_a_dash(self) -> None:
        results = runner.summarise([sample("torch"), sample("unified", lookup_us=2.0)])
        cells = [cell.strip() for cell in PARTS["depth"].table(results).splitlines()[-1].split("|")[1:-1]]
        assert cells == ["4", "9", "4", "2", "-", "2.00x", "-", "2", "2", "-", "1.00x", "-"]

    def test_options_that_this_torch_lacks_have_rows(self) -> None:
        table = PARTS["options"].table(runner.summarise([sample("torch") | {"step_us": 1.0, "checks": None}]))
        assert all(f" {one.name} " in table for one in OPTIONS)

    def test_memory_is_split_into_what_was_there_and_what_grew(self) -> None:
        native = {"built_bytes": 2_000, "program_bytes": 9_000, "witness_bytes": 6_000, "explained_bytes": 1_000}
        sides = [sample("torch", held_bytes=10_000), sample("unified", held_bytes=15_000) | native]
        cells = [cell.strip() for cell in PARTS["memory"].table(runner.summarise(sides)).splitlines()[-1].split("|")]
        # torch's tree, Python objects, of which for explain(), native program, witness, together
        assert cells[3:9] == ["10.0", "3", "1", "3", "6", "22.0"]


class TestJobs:
    def test_contenders_take_turns(self) -> None:
        jobs = witness.jobs_of(PARTS["depth"], ["qwen3_4"], rounds=2, steps=3)
        assert [job.contender for job in jobs] == ["torch", "unified", "exact", "exact", "unified", "torch"]

    def test_the_exact_tier_is_asked_for_in_the_environment(self) -> None:
        assert CONTENDERS["exact"].environment == {"UNIFIED_GUARDS_WITNESS": "0"}


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["depht"], "no part is called 'depht'; there are depth, mutated, entries, options, call, memory"),
            ([], "which part?"),
            (["call", "--cases", "qwen3_4"], "call has no case qwen3_4; it has mlp, x_plus_y"),
            (["call", "--rounds", "0"], "--rounds and --steps are 1 or more"),
        ],
    )
    def test_mistakes_are_explained(self, given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as error:
            witness.main(given)
        assert error.value.code == 2
        assert said in capsys.readouterr().err


class TestPageOfResults:
    def test_of_another_python_is_written_beside(self, tmp_path: Path) -> None:
        first = interleaved.page_for("calls", tmp_path)
        first.write_text("torch 2.13.0+cpu, Python 3.9.1, one thread")
        assert interleaved.page_for("calls", tmp_path).name.replace(f"-python{RUNNING}", "") == first.name
        assert interleaved.page_for("calls", tmp_path) != first

    def test_of_the_same_python_is_written_anew(self, tmp_path: Path) -> None:
        first = interleaved.page_for("calls", tmp_path)
        first.write_text(f"torch 2.13.0+cpu, Python {RUNNING}.0, one thread")
        assert interleaved.page_for("calls", tmp_path) == first
