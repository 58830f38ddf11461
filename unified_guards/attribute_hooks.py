"""Recognises Python-level ``__getattribute__`` and ``__getattr__`` methods whose answers follow from a few dicts.

Most models meet two of them on every guarded attribute: the ``__getattr__`` of ``torch.nn.Module``, which looks in the
dicts of parameters, buffers and submodules, and the ``__getattribute__`` of a model's configuration, which maps some
names to others. Calling them on every check costs a microsecond each. The native checker answers for them from facts
about memory instead, once it is certain what they do: here their source is parsed, compiled again to see that it is
what they run, and compared with the two forms that are known. Anything else is called, as ever. Entry point:
:func:`learn`.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
import weakref
from collections.abc import Iterable
from typing import Any

from unified_guards import _C

#: ``key`` goes by another name when a dict, itself an attribute, says so; then object's own lookup.
_RENAMES = re.compile(
    r"if key != '(\w+)' and key in super\(\)\.__getattribute__\('\1'\):\n"
    r"    key = super\(\)\.__getattribute__\('\1'\)\[key\]\n"
    r"return super\(\)\.__getattribute__\(key\)"
)
#: Object's own lookup, unless the instance's own dict has something by a certain name.
_UNLESS = re.compile(
    r"(\w+) = super\(\)\.__getattribute__\('__dict__'\)\.get\('(\w+)'\)\n"
    r"if \1 is not None:\n(?:    .*\n|\n)+"
    r"return super\(\)\.__getattribute__\(key\)"
)
#: The getter of a property: another attribute of the same object.
_RETURNS = re.compile(r"return self\.(\w+)")
#: The getter of a property: whether an attribute of all items of a list, one of the object's own, is true.
_ALL_OF = re.compile(
    r"(?:if len\(self\.(\w+)\) == 0:\n    return False\n)?"
    r"return all\(\((\w+)\.(\w+) for \2 in self\.(\w+)\)\)"
)
#: One dict of the instance's own after the other; what is in none of them is absent.
_LOOKS_IN = re.compile(
    r"if '(\w+)' in self\.__dict__:\n"
    r"    (\w+) = self\.__dict__\['\1'\]\n"
    r"    if key in \2:\n"
    r"        return \2\[key\]\n"
)
_NOT_FOUND = re.compile(r"raise AttributeError\(.*\)", re.DOTALL)

#: Code that was looked at and is of neither form.
_unknown: weakref.WeakSet[types.CodeType] = weakref.WeakSet()


class _Named(ast.NodeTransformer):
    """The two arguments by one name each, whatever they are called."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node


def _method_of(function: types.FunctionType) -> ast.FunctionDef | None:
    """The definition of a method, if its source, compiled, is what it runs."""
    source = inspect.getsource(function)
    in_class = source[0].isspace()
    tree = ast.parse(f"class _:\n{source}" if in_class else source)
    body = tree.body[0].body if in_class and isinstance(tree.body[0], ast.ClassDef) else tree.body
    definition = body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    definition.decorator_list.clear()  # a property: what is looked at is its getter
    if [argument.arg for argument in definition.args.args] != list(
        function.__code__.co_varnames[: function.__code__.co_argcount]
    ):
        return None
    codes = _codes_in(compile(tree, function.__code__.co_filename, "exec", dont_inherit=True))
    if in_class:
        codes = [code for outer in codes for code in _codes_in(outer)]
    return definition if any(_same_code(code, function.__code__) for code in codes) else None


def _codes_in(code: types.CodeType) -> list[types.CodeType]:
    """The code of what is defined in `code`, one level deep."""
    return [const for const in code.co_consts if isinstance(const, types.CodeType)]


def _same_code(one: types.CodeType, other: types.CodeType) -> bool:
    fields = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount")
    if len(one.co_consts) != len(other.co_consts) or any(getattr(one, f) != getattr(other, f) for f in fields):
        return False
    return all(_same_const(a, b) for a, b in zip(one.co_consts, other.co_consts, strict=True))


def _same_const(one: object, other: object) -> bool:
    # Two codes are equal only when they stand on the same line, too.
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return _same_code(one, other)
    return type(one) is type(other) and one == other


def _text_of(definition: ast.FunctionDef) -> str:
    """The body in one spelling, without its docstring."""
    names = dict(zip((argument.arg for argument in definition.args.args), ("self", "key"), strict=False))
    body = definition.body[1:] if ast.get_docstring(definition) is not None else definition.body
    return "\n".join(ast.unparse(_Named(names).visit(statement)) for statement in body)


def _names_looked_in(text: str) -> list[str] | None:
    """The dicts in which a ``__getattr__`` of the second form looks, in order."""
    names = []
    while (found := _LOOKS_IN.match(text)) is not None:
        names.append(found[1])
        text = text[found.end() :]
    return names if names and _NOT_FOUND.fullmatch(text) else None


def _form_of(function: types.FunctionType) -> tuple[str, tuple[str, ...]] | None:
    """What the native checker is told of a method; None when it is of no known form."""
    try:
        definition = _method_of(function)
    except (OSError, TypeError, SyntaxError, ValueError):
        return None  # no source, or none that can be read
    if definition is None:
        return None
    text = _text_of(definition)
    if (renames := _RENAMES.fullmatch(text)) is not None:
        return "renames", (renames[1],)
    if (unless := _UNLESS.fullmatch(text)) is not None:
        return "unless", (unless[2],)
    if (returns := _RETURNS.fullmatch(text)) is not None:
        return "returns", (returns[1],)
    if (all_of := _ALL_OF.fullmatch(text)) is not None:
        # Of no items it may be true or false: that is left to the property.
        return ("all_of", (all_of[4], all_of[3])) if all_of[1] in (None, all_of[4]) else None
    names = _names_looked_in(text)
    return None if names is None else ("looks_in", tuple(names))


def _learn_function(function: Any) -> None:
    if not isinstance(function, types.FunctionType):
        return
    code = function.__code__
    if code in _unknown or _C.knows_attribute_hook(code):
        return
    form = _form_of(function)
    if form is None:
        _unknown.add(code)
    else:
        _C.know_attribute_hook(code, *form)


_HOOKS = frozenset({"__getattribute__", "__getattr__"})


def learn(objects: Iterable[Any], names: Iterable[str] = ()) -> None:
    """Tells the native checker what the attribute hooks of the types of ``objects`` do, where that is known.

    Args:
        objects: whatever guards read attributes of.
        names: the attributes that they read; properties of these names are looked at, too.
    """
    wanted = _HOOKS.union(names)
    for base in {base for kind in {type(item) for item in objects} for base in kind.__mro__}:
        defined = vars(base)
        for name in wanted & defined.keys():
            found = defined[name]
            if isinstance(found, property):
                _learn_function(found.fget)
            elif name in _HOOKS:
                _learn_function(found)


__all__ = ["learn"]
