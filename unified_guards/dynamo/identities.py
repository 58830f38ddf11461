"""Reads the comparisons of identity that torch writes as text: ``L['x'] is G['y'].z``.

Torch compiles such a text to a Python function of the frame. The sources on both sides make a native guard of it. Entry
point: :func:`same_object`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from unified_guards.guards.ir import Access, Source

#: Gives the source for a text of torch's, where the tree has one.
Known = Callable[[str], Source | None]


def same_object(part: str, function: Callable[..., Any], known: Known | None = None) -> tuple[Source, Source] | None:
    """The two sides of ``a is b``, when both are paths.

    Args:
        part: the text.
        function: what torch has made of it.
        known: is asked first, for the whole path and then for what it starts with.
    """
    part = part.strip()
    try:
        tree = ast.parse(part, mode="eval").body
    except SyntaxError:
        return None
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Is)):
        return None
    reader = _Reader(part, function, known)
    left, right = reader.path(tree.left), reader.path(tree.comparators[0])
    return (left, right) if left is not None and right is not None else None


class _Reader:
    def __init__(self, part: str, function: Callable[..., Any], known: Known | None) -> None:
        self.part = part
        self.function = function
        self.known = known

    def path(self, tree: ast.expr) -> Source | None:
        """An expression of names, attributes, constant items and types, with the meaning that Python gives it."""
        found = self.known(ast.get_source_segment(self.part, tree) or "") if self.known is not None else None
        if found is not None:
            return found
        if isinstance(tree, ast.Name):
            if tree.id == "L":
                return Source.frame()
            scope = getattr(self.function, "__globals__", {}).get("G") if tree.id == "G" else None
            return Source.frame().child(Access.GLOBALS, scope) if isinstance(scope, dict) else None
        if isinstance(tree, ast.Attribute):
            base = self.path(tree.value)
            return None if base is None or base is Source.frame() else base.child(Access.ATTR, tree.attr)
        if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Constant):
            base = self.path(tree.value)
            if base is None:
                return None
            key = tree.slice.value
            if base is Source.frame():
                return base.child(Access.LOCAL, key)
            return base.child(Access.DICT_ITEM if base.access is Access.GLOBALS else Access.ITEM, key)
        if isinstance(tree, ast.Call) and _is_type(tree, self.function):
            base = self.path(tree.args[0])
            return None if base is None or base is Source.frame() else base.child(Access.TYPE)
        return None


def _is_type(tree: ast.Call, function: Callable[..., Any]) -> bool:
    """Whether a call asks for the type of one object."""
    if not isinstance(tree.func, ast.Name) or tree.func.id != "type" or len(tree.args) != 1 or tree.keywords:
        return False
    code = function.__code__
    return "type" not in (*code.co_varnames, *code.co_freevars, *function.__globals__)  # the builtin, then
