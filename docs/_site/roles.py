"""Docstrings name things as Sphinx does, :class:`Report`; on the site these become links."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(class|func|meth|attr|mod):`~?([^`]+)`")


class Roles(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(role[1], role[2], obj), obj.docstring.value)


def _link(kind: str, name: str, obj: griffe.Object) -> str:
    if kind not in ("class", "func"):
        return f"`{name}`"  # an attribute of what the docstring is about
    try:
        path = obj.resolve(name)
    except griffe.NameResolutionError:
        path = name  # written in full
    return f"[`{name.removeprefix('unified_guards.')}`][{path}]"
