"""Runs the tests on every pair of Python and torch that is claimed to work: ``make test-matrix``.

Each column has an environment of its own (``.venv-3.14-2.15.0``), made by the Makefile. What a column has given last is
kept in ``docs/matrix.json``: a column that is done is not run again for the same commit, so that a run which was cut
off goes on with the next one. After each column the table of all is written to ``docs/matrix.md``.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

from tests.interpreters import CHECKOUT, Interpreter, Missing, find, is_here

#: The first is what CI runs whole.
COLUMNS = (("3.11", "2.13.0"), ("3.10", "2.11.0"), ("3.12", "2.14.1"), ("3.13", "2.15.0"), ("3.14", "2.15.0"))
RESULTS = CHECKOUT / "docs/matrix.json"
PAGE = CHECKOUT / "docs/matrix.md"
_REPORT = CHECKOUT / "build/matrix/junit.xml"

#: What is run once more with every verdict compared with torch's.
_VERIFIED = "tests/test_behaviour_unified.py"

_HEAD = """# What is tested

Each line is an environment of its own: a Python, a torch, and the package built for them. `make test-matrix` runs all
of them, and wrote this page: of each column its last run, with the commit that was tested. A Python that is not on the
machine is Debian's. *All* are all tests, and the behaviour suite once more with every verdict compared with torch's.
"""


@dataclasses.dataclass(frozen=True)
class Column:
    """What one column has given.

    Attributes:
        python: the version in full.
        torch: the version in full.
        where: the Python is from.
        tests: that were run, as pytest was told; "all".
        passed: how many passed, or failed as they are expected to.
        failed: the names of those that did not.
        skipped: how many tests were skipped, by reason.
        commit: that was tested.
        date: of the end.
        minutes: the tests took.
    """

    python: str
    torch: str
    where: str
    tests: str
    passed: int
    failed: tuple[str, ...]
    skipped: dict[str, int]
    commit: str
    date: str
    minutes: int


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()


def _commit() -> str:
    """What is tested. What an earlier run has written does not count as a change."""
    changed = _git("status", "--porcelain", "--", ".", ":!docs/matrix.md", ":!docs/matrix.json")
    return _git("rev-parse", "--short=10", "HEAD") + ("-dirty" if changed else "")


# ---- one column ------------------------------------------------------------------------------------------------------


def _results() -> dict[str, dict[str, Any]]:
    """What each column has given last."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def _done(found: dict[str, Any] | None, tests: str, commit: str) -> bool:
    """Whether a column was run on this commit, to the end."""
    if found is None or commit.endswith("-dirty"):
        return False
    return bool(found["commit"] == commit and found["tests"] in (tests, "all"))


def _fetch(python: str, torch: str) -> Interpreter:
    """Gets the Python, torch and what the tests need.

    Raises:
        Missing: they cannot be had here.
    """
    venv = _venv_of(python, torch)
    stamps = [f"{venv}/.stamps/torch-{torch}", f"{venv}/.stamps/tools", f"{venv}/.stamps/test"]
    try:
        interpreter = find(python)
        print(f"\n==> Python {python} ({interpreter.where}), torch {torch}", flush=True)
        interpreter.run("make", *stamps, f"PYTHON={interpreter.python}", f"TORCH={torch}", f"VENV={venv}")
    except subprocess.CalledProcessError as error:
        raise Missing(f"it, torch or what the tests need could not be installed: see above ({error})") from error
    return interpreter


def _venv_of(python: str, torch: str) -> str:
    return f".venv-{python}-{torch}"


def _run(python: str, torch: str, tests: list[str], jobs: int) -> Column:
    interpreter, venv = _fetch(python, torch), _venv_of(python, torch)
    interpreter.run("make", "environment", f"PYTHON={interpreter.python}", f"TORCH={torch}", f"VENV={venv}")
    started = time.monotonic()
    given = _pytest(interpreter, venv, tests, jobs, {})
    if not tests:
        given += _pytest(interpreter, venv, [_VERIFIED], jobs, {"UNIFIED_GUARDS_VERIFY": "1"})
    versions = "import sys, torch; print(sys.version.split()[0], torch.__version__)"
    full = interpreter.says(f"{venv}/bin/python", "-c", versions).split()
    return Column(
        *full,
        where=interpreter.where,
        tests=" ".join(tests) or "all",
        passed=sum(state == "passed" for _, state, _ in given),
        failed=tuple(name for name, state, _ in given if state == "failed"),
        skipped=dict(collections.Counter(why for _, state, why in given if state == "skipped").most_common()),
        commit=_commit(),
        date=datetime.date.today().isoformat(),
        minutes=round((time.monotonic() - started) / 60),
    )


def _pytest(
    interpreter: Interpreter, venv: str, tests: list[str], jobs: int, environ: dict[str, str]
) -> list[tuple[str, str, str]]:
    """Runs tests; of each its name, its state and why that is."""
    _REPORT.parent.mkdir(parents=True, exist_ok=True)
    _REPORT.unlink(missing_ok=True)
    switches = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "UNIFIED_GUARDS": "", "UNIFIED_GUARDS_VERIFY": ""}
    arguments = ["-n", str(jobs), "--dist", "worksteal", "-q", f"--junitxml={_REPORT}", *tests]
    status = interpreter.run(f"{venv}/bin/python", "-m", "pytest", *arguments, environ=switches | environ, check=False)
    if status not in (0, 1):
        sys.exit(f"pytest gave {status} and no result; mend that and run make test-matrix again: it goes on here")
    return [_case(each) for each in ElementTree.parse(_REPORT).iter("testcase")]


def _case(case: ElementTree.Element) -> tuple[str, str, str]:
    name = f"{case.get('classname')}::{case.get('name')}"
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            return name, "failed", found.get("message", "")
    skipped = case.find("skipped")
    if skipped is None or skipped.get("type") == "pytest.xfail":
        return name, "passed", ""
    return name, "skipped", skipped.get("message", "")


# ---- the table -------------------------------------------------------------------------------------------------------


def page_of(columns: list[dict[str, Any]]) -> str:
    """The page, of what each column has given."""
    lines = [
        _HEAD,
        "| Python | torch | Python is of | tests | passed | failed | skipped | minutes | on | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in columns:
        tests = each["tests"] if each["tests"] == "all" else f"`{each['tests'].replace(' ', '`, `')}`"
        counts = f"{each['passed']:,} | {len(each['failed'])} | {sum(each['skipped'].values())}"
        about = f"{each['python']} | {each['torch']} | {each['where']} | {tests}"
        lines.append(f"| {about} | {counts} | {each['minutes']} | {each['date']} | {each['commit']} |")
    for title, what in (("Failed", _failed), ("Skipped, and why", _skipped)):
        shown = [line for each in columns for line in what(each)]
        lines += ["", f"## {title}", "", *(shown or ["None."])]
    return "\n".join(lines) + "\n"


def _failed(column: dict[str, Any]) -> list[str]:
    return [f"- Python {column['python']}: `{name}`" for name in column["failed"]]


def _skipped(column: dict[str, Any]) -> list[str]:
    return [f"- Python {column['python']}: {count} x {why}" for why, count in column["skipped"].items()]


def _keep(column: str, given: Column) -> None:
    """Puts what a column has given in place of what it gave before, and writes the page anew."""
    results = dict(sorted((_results() | {column: dataclasses.asdict(given)}).items()))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page_of(list(results.values())))


def _one_of_these(columns: list[tuple[str, str]], commit: str) -> list[tuple[str, str]]:
    """One column, another for each commit; none where there are none."""
    if not columns:
        print("==> NOT RUN: this machine has no other Python of the matrix", flush=True)
        return []
    return [columns[int(commit[:7], 16) % len(columns)]]


# ---- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Runs what is asked for, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="only the column of this Python; may be given several times")
    parser.add_argument(
        "--one", action="store_true", help="one of the other columns whose Python is here; another for each commit"
    )
    parser.add_argument(
        "--where-possible",
        action="store_true",
        help="say what cannot be had here, and go on",
    )
    parser.add_argument("--tests", nargs="+", default=[], help="only these, as pytest takes them")
    parser.add_argument("--jobs", type=int, default=2, help="test processes")
    asked = parser.parse_args()
    commit, failed = _commit(), []
    columns = [each for each in COLUMNS if asked.python is None or each[0] in asked.python]
    if asked.one:
        columns = _one_of_these([each for each in COLUMNS[1:] if is_here(each[0])], commit)
    for python, torch in columns:
        column = f"{python}-{torch}"
        if _done(_results().get(column), " ".join(asked.tests) or "all", commit):
            print(f"==> Python {python}, torch {torch}: done already", flush=True)
        else:
            try:
                _keep(column, _run(python, torch, asked.tests, asked.jobs))
            except (Missing, subprocess.CalledProcessError) as error:
                said = f"Python {python}, torch {torch}: {error}"
                if asked.where_possible and isinstance(error, Missing):
                    print(f"==> NOT RUN: {said}", flush=True)
                else:
                    failed.append(said)
                continue
        failed += [f"Python {python}: {name}" for name in _results()[column]["failed"]]
    print(f"\n{PAGE.read_text()}")
    sys.exit("\n".join(["Not green:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
