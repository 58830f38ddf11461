"""What is written down is so: README.md's Python runs; that of docs/ and its commands run and print what the pages say.
Every public name, variable and option is described, make targets exist, the stub names what the extension has.

In a page of docs/, all Python blocks are one program. A block with a title (```python title="train.py") is a file, and
```sh blocks are run beside those files. A block that cannot be run here comes after ``<!-- not run: REASON -->``. An
output block (``` alone) after either has lines that were printed, in this order; ``...`` stands for others.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from benchmarks import soundness
from unified_guards import _C
from unified_guards.__main__ import COMMANDS
from unified_guards.cli import doctor

from . import harness

CHECKOUT = Path(__file__).resolve().parents[1]
SHOWN_TORCH = "2.13."  # whose output the pages show
PAGES = sorted((CHECKOUT / "docs").rglob("*.md"))


def _name(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code of a page: in which language, of which file, why it is not run, what it says that is printed."""

    language: str
    title: str
    text: str
    skip: str
    output: list[str]


_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<skip>[^\n]+) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    flags=re.MULTILINE | re.DOTALL,
)


def _blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order, each with the output that is shown after it."""
    found: list[Block] = []
    for match in _BLOCK.finditer(page.read_text()):
        language, title, text, skip = (match[name] or "" for name in ("language", "title", "text", "skip"))
        if language:
            found.append(Block(language, title, text, skip, []))
        elif found:
            found[-1].output.extend(line.strip() for line in text.splitlines() if line.strip() not in ("", "..."))
    return found


def _programs(page: Path) -> list[Block]:
    return [block for block in _blocks(page) if block.language == "python" and not block.title and not block.skip]


COMMAND_BLOCKS = [
    pytest.param(page, block, id=f"{_name(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(block for block in _blocks(page) if block.language == "sh")
]
RUNNING = [page for page in PAGES if _programs(page)]


def _assert_printed(expected: list[str], printed: str, where: Path) -> None:
    """Every line of ``expected`` is one of ``printed``, in this order; paths are those of the page."""
    if not torch.__version__.startswith(SHOWN_TORCH):
        return  # it ran, and another torch may compile other frames
    for folder in (str(where), os.path.relpath(where, tempfile.gettempdir())):  # harness.run_python runs programs there
        printed = printed.replace(f"{folder}{os.sep}", "")
    lines = iter([line.strip() for line in printed.splitlines()])
    for line in expected:
        assert any(other == line for other in lines), f"{line!r} was not printed where it should be, in:\n{printed}"


def test_readme_runs(tmp_path: Path) -> None:
    blocks = _programs(CHECKOUT / "README.md")
    assert blocks, "README.md shows no Python"
    program = tmp_path / "readme.py"
    program.write_text("\n".join(block.text for block in blocks))
    done = harness.run_python(str(program))
    assert done.returncode == 0, done.stderr
    _assert_printed([line for block in blocks for line in block.output], done.stdout, tmp_path)


def test_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_is_understood(page: Path) -> None:
    fences = re.findall(r"^```", page.read_text(), flags=re.MULTILINE)
    assert 2 * len(_BLOCK.findall(page.read_text())) == len(fences)
    assert {block.language for block in _blocks(page)} <= {"python", "sh"}


@pytest.mark.parametrize("page", RUNNING, ids=_name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    blocks = _programs(page)
    program = tmp_path / f"{page.stem.lower()}.py"
    program.write_text("\n".join(block.text for block in blocks))
    done = harness.run_python(str(program))
    assert done.returncode == 0, done.stderr
    _assert_printed([line for block in blocks for line in block.output], done.stdout, tmp_path)


@pytest.mark.parametrize(("page", "block"), COMMAND_BLOCKS)
def test_commands_run(page: Path, block: Block, tmp_path: Path) -> None:
    if block.skip:
        pytest.skip(block.skip)
    for file in _blocks(page):
        if file.title:
            (tmp_path / file.title).write_text(file.text)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("UNIFIED_GUARDS")}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", "-ec", block.text]
    together: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=tmp_path, env=variables, timeout=240, check=False, **together)
    assert done.returncode == 0, done.stdout
    _assert_printed(block.output, done.stdout, tmp_path)


@pytest.mark.parametrize("page", ["docs/recipes/aot.md", "docs/guards.md"])
def test_soundness_table_is_what_a_run_gives(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    (table,) = re.findall(r"<!-- table: soundness -->\n+(.*?)\n+<!-- end of", text, flags=re.DOTALL)
    assert table == soundness.as_markdown()


def test_readme_names_every_make_target_it_shows() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        shown = set(re.findall(r"`make ([a-z-]+)", (CHECKOUT / page).read_text()))
        assert shown <= targets, f"{page} shows {shown - targets}, which the Makefile lacks"


def _is_environment_variable(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"UNIFIED_GUARDS[A-Z_]*", text) is not None


def _environment_variables() -> set[str]:
    """Our variables that the package names outside of its messages."""
    files = [CHECKOUT / "_unified_guards_autoload.py", *(CHECKOUT / "unified_guards").rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {
        str(node.value) for node in nodes if isinstance(node, ast.Constant) and _is_environment_variable(node.value)
    }


def test_doctor_knows_every_environment_variable() -> None:
    assert set(doctor._OURS) == _environment_variables()


@pytest.mark.parametrize("name", sorted(_environment_variables()))
def test_environment_variable_is_described(name: str) -> None:
    page = (CHECKOUT / "docs/options.md").read_text()
    assert re.search(rf"^\| `{name}=", page, flags=re.MULTILINE), f"docs/options.md lacks a row of {name}"


@pytest.mark.parametrize("name", unified_guards.__all__)
def test_public_name_is_in_the_reference(name: str) -> None:
    assert f"\n::: unified_guards.{name}\n" in (CHECKOUT / "docs/reference.md").read_text()


def test_reference_has_no_other_names() -> None:
    names = re.findall(r"^::: unified_guards\.(\w+)$", (CHECKOUT / "docs/reference.md").read_text(), flags=re.MULTILINE)
    assert sorted(names) == sorted(unified_guards.__all__)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_described(name: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    options = {text for action in parser._actions for text in action.option_strings if len(text) > 2 or text == "-m"}
    page = (CHECKOUT / "docs/commands.md").read_text()
    (section,) = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    usage, *rows = re.findall(r"^`python -m .*`$|^\| `.*$", section, flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--?[a-z]+", usage.partition(name)[2])) == options
    assert {option for row in rows for option in re.findall(r"^\| `(--?[a-z]+)", row)} == options


def test_site_shows_every_page() -> None:
    shown = set(re.findall(r"[\w/.-]+\.md", (CHECKOUT / "mkdocs.yml").read_text()))
    results = (CHECKOUT / "benchmarks/results").glob("*.md")
    outside = {"CONTRIBUTING.md", "CHANGELOG.md", *(_name(page) for page in results)}
    assert shown == outside | {page.relative_to(CHECKOUT / "docs").as_posix() for page in PAGES}


def _declared(body: list[ast.stmt]) -> set[str]:
    named = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return named | {node.target.id for node in body if isinstance(node, ast.AnnAssign)}


def test_stub_mirrors_the_extension() -> None:
    tree = ast.parse((CHECKOUT / "unified_guards" / "_C.pyi").read_text())
    public = {name for name in dir(_C) if not name.startswith("__")}
    assert {name for name in _declared(tree.body) if not name.startswith("_")} == public
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in classes:
        own = {name for name in vars(getattr(_C, node.name)) if not name.startswith("__")}
        assert {name for name in _declared(node.body) if not name.startswith("__")} == own - {"_pybind11_conduit_v1_"}
