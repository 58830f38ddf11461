"""Where advice is told: in a line of the log, on the page, by ``bench --script``; and what is never done for it."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards import config
from unified_guards.dynamo import recompiles
from unified_guards.report.html import model

from .. import harness
from ..harness import ones
from .cases import Config

PROGRAM = """
import torch

def double(x):
    return x * 2

compiled = torch.compile(double, backend="eager")
for rows in (3, 4, *[5] * 30):
    compiled(torch.ones(rows))
"""


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    torch._dynamo.reset()
    with unified_guards.installed():
        yield
    del config.log
    torch._dynamo.reset()


def recompiled(**options: Any) -> Any:
    """A function that was compiled twice."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    run = torch.compile(double, backend="eager", dynamic=False, **options)
    run(ones(3))
    run(ones(4))
    return run


# -- the log -----------------------------------------------------------------------------------------------------------


def run_with_log(tmp_path: Path, asked: str, program: str = PROGRAM) -> Any:
    script = tmp_path / "program.py"
    script.write_text(f"import unified_guards\nunified_guards.install()\n{program}")
    return harness.run_python(str(script), environ={"UNIFIED_GUARDS_LOG": asked})


def test_the_log_has_one_line_a_recompile_on_stderr(tmp_path: Path) -> None:
    done = run_with_log(tmp_path, "recompiles")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line]
    where = f"{tmp_path.name}/program.py:6) [0/1] compiled again, version 2 of at most 8, because of: "
    assert line.startswith("double (") and where in line
    assert (
        " | cause: dimension 0 of x was 3 when this was compiled and is 4 | to do: torch._dynamo.mark_dynamic" in line
    )
    assert " | torch calls it: dynamic shapes" in line
    assert not done.stdout


@pytest.mark.parametrize("asked", ["", "0", "off"])
def test_nothing_is_logged_unless_it_is_asked_for(tmp_path: Path, asked: str) -> None:
    assert run_with_log(tmp_path, asked).stderr == ""


def test_an_unknown_value_is_told_once_and_logs_nothing(tmp_path: Path) -> None:
    said = run_with_log(tmp_path, "recompile").stderr
    assert said.count("UNIFIED_GUARDS_LOG is 'recompile', and 'recompile' is nothing that can be logged") == 1
    assert "export UNIFIED_GUARDS_LOG=recompiles" in said
    assert "compiled again" not in said


def test_a_logger_of_the_users_gets_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with config.patch(log="recompiles"), caplog.at_level(logging.WARNING, logger="unified_guards.recompiles"):
        recompiled()
    (record,) = (record for record in caplog.records if record.name == "unified_guards.recompiles")
    assert "version 2 of at most 8" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_several_versions_that_do_not_fit_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    run = recompiled()
    with config.patch(log="recompiles"):
        run(ones(5))
    (record,) = caplog.records
    assert "version 3 of at most 8" in record.getMessage()
    assert "; 1 more version did not fit" in record.getMessage()


def test_the_line_tells_of_a_limit_that_is_reached(caplog: pytest.LogCaptureFixture) -> None:
    with torch._dynamo.config.patch(recompile_limit=1), config.patch(log="recompiles"):
        recompiled()
    (record,) = (record for record in caplog.records if record.name == "unified_guards.recompiles")
    said = record.getMessage()
    assert "not compiled again, for recompile_limit (1) is reached: runs eagerly where no version fits" in said


def test_a_hit_logs_nothing_and_looks_at_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    run = recompiled()

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a hit looks at nothing")

    monkeypatch.setattr(recompiles, "note", fail)
    with config.patch(log="recompiles"):
        run(ones(3))
        run(ones(4))
    assert not caplog.records


def test_a_logger_that_raises_stops_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter of the user's")

    recompiles.logger.addFilter(fail)
    try:
        with config.patch(log="recompiles"):
            assert torch.equal(recompiled()(ones(4)), ones(4) * 2)
    finally:
        recompiles.logger.removeFilter(fail)


def test_a_stance_that_forbids_compiling_is_no_recompile(caplog: pytest.LogCaptureFixture) -> None:
    run = recompiled()
    forbidden = pytest.raises(RuntimeError, match="fail_on_recompile")
    with config.patch(log="recompiles"), torch.compiler.set_stance("fail_on_recompile"), forbidden:
        run(ones(7))
    assert not [record for record in caplog.records if record.name == "unified_guards.recompiles"]
    assert "not compiled again, for that was forbidden" in unified_guards.explain(run).summary()


def test_asking_an_entry_that_fits_notes_nothing() -> None:
    run = recompiled()
    oldest = unified_guards.explain(run).frames[-1].recompilations
    for cached in harness.cache_entries(run):
        cached.guard_manager.check_verbose({"x": ones(4)})
        cached.guard_manager.check_verbose({"x": ones(3)})
    noted = [each for frame in unified_guards.explain(run).frames for each in frame.recompilations]
    assert oldest[0] in noted
    assert all(each.guard is not None for each in noted)


def test_uninstalling_puts_torchs_question_for_the_limit_back() -> None:
    from torch._dynamo import cache_size, convert_frame

    assert convert_frame.exceeds_recompile_limit is not cache_size.exceeds_recompile_limit
    with_ours = convert_frame.exceeds_recompile_limit
    program = "from torch._dynamo import cache_size, convert_frame\nimport unified_guards\n"
    program += "unified_guards.install(); unified_guards.uninstall()\n"
    program += "assert convert_frame.exceeds_recompile_limit is cache_size.exceeds_recompile_limit"
    assert with_ours.__doc__ == cache_size.exceeds_recompile_limit.__doc__
    assert harness.run_python("-c", program).returncode == 0


# -- the page, and bench -----------------------------------------------------------------------------------------------


def test_the_page_has_the_cause_and_what_to_do() -> None:
    found = model.gather(unified_guards.explain(recompiled()))
    ((_, text, guard, advice),) = found["entries"][-1]["misses"]
    assert guard >= 0 and "dimension 0 is 4, not 3" in text
    ((name, cause, remedy, term),) = advice
    assert (name, cause) == ("size", "cause: dimension 0 of x was 3 when this was compiled and is 4")
    assert remedy.startswith("to do: torch._dynamo.mark_dynamic(x, 0)")
    assert term.startswith("torch calls it: dynamic shapes")
    assert json.loads(json.dumps(found))["entries"][-1]["misses"][0][3] == advice


def test_bench_tells_what_was_compiled_again(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = harness.run_python("-m", "unified_guards", "bench", "--script", str(script))
    assert done.returncode == 0, done.stderr
    told = done.stdout[done.stdout.index("Recompiles: 1.") :]
    assert f"{tmp_path.name}/program.py:4) was compiled again, because of: L['x'] is torch.Tensor float32[3]" in told
    assert "    cause: dimension 0 of x was 3 when this was compiled and is 4\n    to do: torch._dynamo.mark" in told


def test_bench_tells_it_of_a_program_that_compiles_again_and_again(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("(3, 4, *[5] * 30)", "range(2, 7)").replace('eager"', 'eager", dynamic=False'))
    done = harness.run_python("-m", "unified_guards", "bench", "--script", str(script))
    assert "was not measured: found were 5 calls of compiled code, 0 of them after" in done.stdout
    assert "Recompiles: 4." in done.stdout
    assert "was compiled again, 4 times, because of: " in done.stdout


# -- never -------------------------------------------------------------------------------------------------------------


def test_no_code_of_the_users_is_run_to_tell_of_a_value() -> None:
    """The class raises in its repr, its str and its len; so does its metaclass."""

    class Meta(type):
        def __repr__(cls) -> str:
            raise AssertionError("of a metaclass")

        __hash__ = __eq__ = __repr__  # type: ignore[assignment]
        __class__ = __name__ = property(__repr__)  # type: ignore[assignment]

    class Loud(Config, metaclass=Meta):
        pass

    class Keys(dict):  # type: ignore[type-arg]
        __repr__ = __len__ = __iter__ = keys = __getitem__ = Config.__repr__  # type: ignore[assignment]

    from unified_guards.guards.failures import shown

    assert shown(Loud()) == "a Loud"
    assert shown(Loud).endswith(".Loud")
    assert shown(Keys(a=1)) == "a Keys of 1 ('a')"
    assert shown([Loud()]) == "a list of 1"
    assert shown({Loud(): 1}) == "a dict of 1"


def test_a_fault_in_the_table_leaves_the_reason_and_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from unified_guards.report import advice

    def fail(_: Any) -> None:
        raise RuntimeError("a row that is wrong")

    monkeypatch.setattr(advice, "advise", fail)
    run = recompiled()
    (made,) = unified_guards.explain(run).frames[-1].recompilations
    assert made.advice is None
    assert "(found Tensor float32[4]" in made.text
    assert torch.equal(run(ones(4)), ones(4) * 2)


def test_threads_that_recompile_do_not_mix_their_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def second(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    def work(function: Any) -> None:
        run = torch.compile(function, backend="eager", dynamic=False)
        for rows in (3, 4, 5):
            run(ones(rows))

    made: list[recompiles.Recompile] = []
    monkeypatch.setattr(recompiles, "collected", made)
    harness.run_threads([functools.partial(work, function) for function in (first, second)])
    told = sorted((each.function.partition(" ")[0], each.version, len(each.reasons)) for each in made)
    assert told == [("first", 2, 1), ("first", 3, 2), ("second", 2, 1), ("second", 3, 2)]
