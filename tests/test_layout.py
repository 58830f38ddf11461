"""The layout: a program that never misses does without the slow evaluator, and ``dynamo/`` without ``aot/``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import unified_guards

from . import harness

PACKAGE = Path(unified_guards.__file__).parent

PROGRAM = """
import sys, torch, unified_guards

unified_guards.install({install})
run = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
for size in ({sizes}):
    run(torch.ones(size))
print("hits", unified_guards.stats().hits, "evaluator", "unified_guards.guards.semantics" in sys.modules)
"""


@pytest.mark.parametrize(
    "install, sizes, printed",
    [("", "3, 3", "hits 1 evaluator False"), ("strict=True", "3, 3", "hits 1 evaluator False"),
     ("", "3, 4", "hits 0 evaluator True")],
    ids=["hit", "strict hit", "miss"],
)  # fmt: skip
def test_only_a_miss_needs_the_slow_evaluator(tmp_path: Path, install: str, sizes: str, printed: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(install=install, sizes=sizes))
    done = harness.run_python(str(script), environ={"UNIFIED_GUARDS_VERIFY": "", "UNIFIED_GUARDS_STRICT": ""})
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def imports_of(path: Path) -> set[str]:
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in found if node.module is not None}


def test_dynamo_imports_nothing_from_aot() -> None:
    imported = set().union(*map(imports_of, (PACKAGE / "dynamo").rglob("*.py")))
    assert "unified_guards.entry" in imported
    assert not [name for name in imported if name.startswith("unified_guards.aot")]
