"""Contenders that are measured in turn, each in processes of its own, and the page that shows the table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks import ROOT
from unified_guards.bench.runner import child_environment, environment, markdown

T = TypeVar("T")


def in_turn(contenders: Iterable[str], rounds: int, run: Callable[[str], T]) -> dict[str, list[T]]:
    """What each contender gave in each round. Every second round goes the other way round."""
    order = list(contenders)
    found: dict[str, list[T]] = {who: [] for who in order}
    for number in range(rounds):
        for who in order if number % 2 == 0 else order[::-1]:
            found[who].append(run(who))
    return found


def run_child(name: str, options: Iterable[str], variables: dict[str, str]) -> Any:
    """What a child of the benchmark of that name prints last, as JSON.

    Args:
        name: of a module of `benchmarks`.
        options: of its command line.
        variables: of the environment, beside those that every child has.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    surroundings = child_environment() | variables
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[2:])} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def page(title: str, command: str, about: list[str], header: Iterable[str], rows: list[list[str]]) -> str:
    """The text of a page of results: how it was made, on what machine, what its words mean, and the table."""
    machine = "torch {torch}, Python {python}, {cpu}, {cores} cores, one thread, {date}. Medians.".format(
        **environment()
    )
    return "\n".join([f"# {title}", "", f"`{command}`  ", machine, "", *about, "", markdown(list(header), rows)])


def page_for(stem: str, folder: Path) -> Path:
    """Where the page of this torch is kept: beside the page of another Python, not in its place."""
    found = environment()
    version = ".".join(torch.__version__.split(".")[:2])
    python = ".".join(found["python"].split(".")[:2])
    for name in (f"torch{version}-cpu", f"torch{version}-python{python}-cpu"):
        page = folder / f"{stem}-{name}.md"
        if not page.exists() or f"Python {python}." in page.read_text():
            return page
    return page


def write(stem: str, text: str) -> None:
    """Puts a page where results are kept, under a name that says which torch was measured."""
    page_for(stem, ROOT / "benchmarks" / "results").write_text(text + "\n")
