"""Recognises Python-level ``__getattribute__`` and ``__getattr__`` methods whose answers follow from a few dicts.

Most models meet two of them on every guarded attribute: the ``__getattr__`` of ``torch.nn.Module``, which looks in the
dicts of parameters, buffers and submodules, and the ``__getattribute__`` of a model's configuration, which maps some
names to others. Calling them on every check costs a microsecond each. The native checker answers for them from facts
about memory instead, once it is certain what they do: here their source is parsed, compiled again to see that it is
what they run, and compared with the forms that are known. Names are compared by where they come from (an argument, a
builtin, a local), never by how they are spelt. A method of no known form is called, as ever. Entry point:
:func:`learn`.
"""

from __future__ import annotations

import ast
import inspect
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from unified_guards import _C

#: Code that was looked at and has none of the known forms.
_unknown: weakref.WeakSet[types.CodeType] = weakref.WeakSet()


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
    if [argument.arg for argument in (*definition.args.posonlyargs, *definition.args.args)] != list(
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
    # Not ==: two code objects that stand on different lines are not equal.
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return _same_code(one, other)
    return type(one) is type(other) and one == other


class _Method:
    """The body of a method, and where each of its names comes from: an argument, a local, or else outside."""

    def __init__(self, definition: ast.FunctionDef, code: types.CodeType) -> None:
        self.arguments = code.co_varnames[: code.co_argcount]
        self.free = code.co_freevars
        self.own = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
        has_docstring = ast.get_docstring(definition, clean=False) is not None
        self.body = definition.body[1:] if has_docstring else definition.body

    def is_given(self, node: ast.AST | None, argument: int) -> bool:
        """Whether this is the first argument or the second."""
        return isinstance(node, ast.Name) and node.id == self.arguments[argument]

    def is_builtin(self, node: ast.AST, name: str) -> bool:
        return isinstance(node, ast.Name) and node.id == name and name not in self.own

    def local(self, node: ast.AST | None) -> str | None:
        """The name of a variable that is no argument."""
        name = node.id if isinstance(node, ast.Name) else None
        return name if name is not None and name in self.own and name not in self.arguments else None

    def of_self(self, node: ast.AST | None) -> str | None:
        """What ``self.name`` reads."""
        return node.attr if isinstance(node, ast.Attribute) and self.is_given(node.value, 0) else None

    def above(self, node: ast.AST | None) -> ast.expr | None:
        """What ``super().__getattribute__(name)`` is asked for."""
        if not (isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords and self.free == _OF_CLASS):
            return None
        method = node.func
        if not (isinstance(method, ast.Attribute) and method.attr == "__getattribute__"):
            return None
        of = method.value
        if not isinstance(of, ast.Call) or of.args or of.keywords or not self.is_builtin(of.func, "super"):
            return None
        return node.args[0]

    def above_by_name(self, node: ast.AST | None) -> str | None:
        return _text(self.above(node))

    def ends_above(self, statement: ast.stmt) -> bool:
        """Whether it is ``return super().__getattribute__(key)``."""
        return isinstance(statement, ast.Return) and self.is_given(self.above(statement.value), 1)


_OF_CLASS = ("__class__",)


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _assigned(statement: ast.stmt) -> tuple[ast.expr, ast.expr] | None:
    """The one target of an assignment, and what it is given."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return statement.targets[0], statement.value
    return None


def _comparison(node: ast.AST, operator: type[ast.cmpop]) -> tuple[ast.expr, ast.expr] | None:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], operator):
        return node.left, node.comparators[0]
    return None


def _renames(method: _Method) -> tuple[str, ...] | None:
    """Object's own lookup of ``key``, or of another name if a dict, which is itself an attribute, gives ``key`` one."""
    match method.body:
        case [ast.If(test=ast.BoolOp(op=ast.And(), values=[unequal, has]), body=[renaming], orelse=[]), last]:
            pass
        case _:
            return None
    other, member, given = _comparison(unequal, ast.NotEq), _comparison(has, ast.In), _assigned(renaming)
    if other is None or member is None or given is None or not isinstance(given[1], ast.Subscript):
        return None
    keys = [other[0], member[0], given[0], given[1].slice]
    names = {_text(other[1]), method.above_by_name(member[1]), method.above_by_name(given[1].value)}
    name = names.pop()
    if name is None or names or not all(method.is_given(key, 1) for key in keys) or not method.ends_above(last):
        return None
    return (name,)


def _unless(method: _Method) -> tuple[str, ...] | None:
    """Object's own lookup, unless the instance's own dict has something by a certain name."""
    match method.body:
        case [
            ast.Assign(
                targets=[target], value=ast.Call(func=ast.Attribute(attr="get") as get, args=[key], keywords=[])
            ),
            ast.If(test=test, orelse=[]),
            last,
        ]:
            pass
        case _:
            return None
    compared, name, variable = _comparison(test, ast.IsNot), _text(key), method.local(target)
    if compared is None or name is None or variable is None or method.above_by_name(get.value) != "__dict__":
        return None
    is_none = isinstance(compared[1], ast.Constant) and compared[1].value is None
    return (name,) if is_none and method.local(compared[0]) == variable and method.ends_above(last) else None


def _returns(method: _Method) -> tuple[str, ...] | None:
    """The getter of a property that returns another attribute of the same object."""
    match method.body:
        case [ast.Return(value=value)]:
            name = method.of_self(value)
            return None if name is None else (name,)
    return None


def _all_of(method: _Method) -> tuple[str, ...] | None:
    """The getter of a property that says whether an attribute is true in all items of a list of the object's."""
    match method.body:
        case [*before, ast.Return(value=ast.Call(func=function, args=[ast.GeneratorExp() as items], keywords=[]))]:
            pass
        case _:
            return None
    match items:
        case ast.GeneratorExp(
            elt=ast.Attribute(value=ast.Name(id=item), attr=name),
            generators=[ast.comprehension(target=ast.Name(id=variable), iter=source, ifs=[], is_async=0)],
        ):
            pass
        case _:
            return None
    listed = method.of_self(source)
    if listed is None or item != variable or not method.is_builtin(function, "all"):
        return None
    # Of no items it may be true or false: that is left to the property.
    return (listed, name) if not before or _is_false_of_none(method, before, listed) else None


def _is_false_of_none(method: _Method, before: list[ast.stmt], listed: str) -> bool:
    """Whether all that comes before is ``if len(self.listed) == 0: return False``."""
    match before:
        case [
            ast.If(
                test=ast.Compare(
                    left=ast.Call(func=function, args=[source], keywords=[]),
                    ops=[ast.Eq()],
                    comparators=[ast.Constant(value=0)],
                ),
                body=[ast.Return(value=ast.Constant(value=False))],
                orelse=[],
            )
        ]:
            return method.is_builtin(function, "len") and method.of_self(source) == listed
    return False


def _looks_in(method: _Method) -> tuple[str, ...] | None:
    """A ``__getattr__`` that looks into some dicts of the instance, one after the other, and then raises."""
    *looks, last = method.body
    if not looks or not (isinstance(last, ast.Raise) and last.cause is None and _is_quiet(method, last.exc)):
        return None
    names = [_looked_in(method, look) for look in looks]
    found = tuple(name for name in names if name is not None)
    return found if len(found) == len(names) else None


def _looked_in(method: _Method, statement: ast.stmt) -> str | None:
    """The name of the dict in ``if name in self.__dict__: d = self.__dict__[name]; if key in d: return d[key]``."""
    match statement:
        case ast.If(test=has, body=[first, ast.If(test=has_key, body=[ast.Return(value=item)], orelse=[])], orelse=[]):
            pass
        case _:
            return None
    member, key_member, given = _comparison(has, ast.In), _comparison(has_key, ast.In), _assigned(first)
    if member is None or key_member is None or given is None:
        return None
    if not isinstance(given[1], ast.Subscript) or not isinstance(item, ast.Subscript):
        return None
    name, variable = _text(member[0]), method.local(given[0])
    if name is None or variable is None or _text(given[1].slice) != name:
        return None
    of_self = [method.of_self(node) == "__dict__" for node in (member[1], given[1].value)]
    of_variable = [method.local(node) == variable for node in (key_member[1], item.value)]
    keys = [method.is_given(node, 1) for node in (key_member[0], item.slice)]
    return name if all(of_self + of_variable + keys) else None


def _is_quiet(method: _Method, node: ast.expr | None) -> bool:
    """Whether it makes an ``AttributeError`` and runs no code of a user's."""
    match node:
        case ast.Call(func=function, args=[message], keywords=[]) if method.is_builtin(function, "AttributeError"):
            return _is_quiet_text(method, message)
    return False


def _is_quiet_text(method: _Method, node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.JoinedStr(values=values):
            return all(_is_quiet_text(method, value) for value in values)
        case ast.FormattedValue(value=value, format_spec=None):
            return _is_quiet_text(method, value)
        case ast.Attribute(value=ast.Call(func=function, args=[of], keywords=[]), attr="__name__"):
            return method.is_builtin(function, "type") and method.is_given(of, 0)
    return method.is_given(node, 1)


#: By the name of a form on the native side: how many arguments its methods take, and what recognises the form.
_FORMS: dict[str, tuple[int, Callable[[_Method], tuple[str, ...] | None]]] = {
    "renames": (2, _renames),
    "unless": (2, _unless),
    "looks_in": (2, _looks_in),
    "returns": (1, _returns),
    "all_of": (1, _all_of),
}

_STRANGE = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


def _form_of(function: types.FunctionType) -> tuple[str, tuple[str, ...]] | None:
    """What the native checker is told of a method; None when it is of no known form."""
    code = function.__code__
    if code.co_flags & _STRANGE or code.co_kwonlyargcount:
        return None
    try:
        definition = _method_of(function)
    except (OSError, TypeError, SyntaxError, ValueError, RecursionError):
        return None  # no source, or none that can be read
    if definition is None:
        return None
    method = _Method(definition, code)
    for form, (arguments, recognise) in _FORMS.items():
        names = recognise(method) if arguments == code.co_argcount and method.body else None
        if names is not None:
            return form, names
    return None


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
