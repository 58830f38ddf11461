"""The Python code of README.md runs, block after block in one program, as a reader would try it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def test_readme_names_every_make_target_it_shows() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        shown = set(re.findall(r"`make ([a-z-]+)", (CHECKOUT / page).read_text()))
        assert shown <= targets, f"{page} shows {shown - targets}, which the Makefile lacks"
