"""What the tests of shape expressions share."""

from __future__ import annotations

from unified_guards.ir import Guard, Source
from unified_guards.shapes import expression, numbered, parse


def shape(text: str, *sources: Source) -> Guard:
    """The guard that ``text`` writes over v0, v1, …, one for each of ``sources``."""
    return expression(parse(text, dict(zip(numbered(len(sources)), sources, strict=True))))
