"""Writes a report as one page: its data, style and program are in it, and it asks the network for nothing.

Entry point: :func:`write`. Its parts lie beside this file:
``page.html``, ``page.css``, and the program: ``data.js`` decodes what model.py encoded, ``treemap.js`` draws the map,
``page.js`` all else.
"""

from __future__ import annotations

import html
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from unified_guards.report.explain import Report
from unified_guards.report.html.model import gather

#: The parts of the page's program, which are joined in this order to one script.
_PROGRAM = ("data.js", "treemap.js", "page.js")


def _part(name: str) -> str:
    return resources.files("unified_guards.report.html").joinpath(name).read_text(encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """The page that shows what :func:`gather` gave."""
    # Without "<" no text can end the element that the data stands in.
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": html.escape(data["title"]),
        "style": _part("page.css"),
        "data": content,
        "program": "\n".join(map(_part, _PROGRAM)),
    }
    # The template is split before anything is put in: an "@@" in the data is no place to put something.
    pieces = _part("page.html").split("@@")
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def write(report: Report, path: str | os.PathLike[str]) -> Path:
    """Writes the page of a report; see :meth:`Report.to_html`."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{target} cannot be written: there is no folder {target.parent.resolve()}. "
            f"Make it first (mkdir -p {target.parent}), or give another path."
        )
    target.write_text(render(gather(report)), encoding="utf-8", errors="backslashreplace")
    return target
