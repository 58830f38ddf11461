"""What is written down is so: README.md's Python runs, make targets exist, the stub names what the extension has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from benchmarks import soundness
from unified_guards import _C

pytest.register_assert_rewrite("tests.behaviour")

from . import behaviour  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[1]


def _blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_readme_runs(tmp_path: Path) -> None:
    blocks = _blocks((CHECKOUT / "README.md").read_text())
    assert blocks, "README.md shows no Python"
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks))
    done = behaviour.run_python(str(program))
    assert done.returncode == 0, done.stderr
    assert "left to torch" in done.stdout


@pytest.mark.parametrize("page", sorted((CHECKOUT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    program = tmp_path / "page.py"
    program.write_text("\n".join(_blocks(page.read_text())))
    done = behaviour.run_python(str(program))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/guards.md"])
def test_soundness_table_is_what_a_run_gives(page: str) -> None:
    text = (CHECKOUT / page).read_text()
    (table,) = re.findall(r"<!-- table: soundness -->\n+(.*?)\n+<!-- end of", text, flags=re.DOTALL)
    assert table == soundness.as_markdown()


def test_readme_names_every_make_target_it_shows() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        shown = set(re.findall(r"`make ([a-z-]+)", (CHECKOUT / page).read_text()))
        assert shown <= targets, f"{page} shows {shown - targets}, which the Makefile lacks"


def _declared(body: list[ast.stmt]) -> set[str]:
    named = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return named | {node.target.id for node in body if isinstance(node, ast.AnnAssign)}


def test_stub_mirrors_the_extension() -> None:
    tree = ast.parse((CHECKOUT / "unified_guards" / "_C.pyi").read_text())
    public = {name for name in dir(_C) if not name.startswith("__")}
    assert {name for name in _declared(tree.body) if not name.startswith("_")} == public
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        own = {name for name in vars(getattr(_C, node.name)) if not name.startswith("__")}
        assert {name for name in _declared(node.body) if not name.startswith("__")} == own - {"_pybind11_conduit_v1_"}
