"""Changes of functions: their cells, code and defaults."""

from __future__ import annotations

import types
from collections.abc import Iterator

from unified_guards.guards.ir import Access

from ...guards import X, attr, equals, same
from .table import Step, change


def closing_over(value: object) -> types.FunctionType:
    def function(a: int = 1, *, b: int = 2) -> object:
        return value

    assert isinstance(function, types.FunctionType)
    return function


@change
def a_cell_holds_something_else() -> Iterator[Step]:
    function = closing_over(1)
    cell = X.child(Access.FUNC_CLOSURE).child(Access.TUPLE_ITEM, 0)
    yield {"x": function}, [equals(attr("cell_contents", cell), 1)]
    assert function.__closure__ is not None
    function.__closure__[0].cell_contents = 2
    yield None
    function.__closure__[0].cell_contents = 1


@change
def a_cell_is_emptied() -> Iterator[Step]:
    function = closing_over(1)
    cell = X.child(Access.FUNC_CLOSURE).child(Access.TUPLE_ITEM, 0)
    yield {"x": function}, [equals(attr("cell_contents", cell), 1)]
    assert function.__closure__ is not None
    del function.__closure__[0].cell_contents


@change
def the_code_of_a_function_is_another() -> Iterator[Step]:
    function = closing_over(1)
    before = function.__code__
    yield {"x": function}, [same(X.child(Access.FUNC_CODE), before)]
    function.__code__ = before.replace(co_name="another")
    yield None
    function.__code__ = before


@change
def the_defaults_of_a_function_are_others() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_DEFAULTS).child(Access.TUPLE_ITEM, 0), 1)]
    function.__defaults__ = (2,)


@change
def the_defaults_of_a_function_are_gone() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_DEFAULTS).child(Access.TUPLE_ITEM, 0), 1)]
    function.__defaults__ = None


@change
def the_keyword_defaults_of_a_function_are_others() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_KWDEFAULTS).child(Access.DICT_ITEM, "b"), 2)]
    function.__kwdefaults__ = {"b": 3}


@change
def a_keyword_default_of_a_function_is_another() -> Iterator[Step]:
    function = closing_over(1)
    yield {"x": function}, [equals(X.child(Access.FUNC_KWDEFAULTS).child(Access.DICT_ITEM, "b"), 2)]
    function.__kwdefaults__["b"] = 3
