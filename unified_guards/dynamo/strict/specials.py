"""Rule: the special methods that Python looks up without naming them are found where they were found.

``if x`` asks the class of ``x`` for ``__bool__``, then for ``__len__``; a class that has neither may be given one.
Which classes took part in such operations, ``reads.py`` notes. Which names were looked up, the instructions of the code
that was traced say, and the functions that it calls. Entry points: :func:`specials`,
:func:`methods_of_tensors`.
"""

from __future__ import annotations

import dis
import operator
import sys
from collections.abc import Iterator

import torch

from unified_guards.dynamo.strict.known import Extra, Known, own_of, same_value
from unified_guards.dynamo.strict.lookups import Lookups
from unified_guards.dynamo.strict.reads import can_change
from unified_guards.guards.ir import Access, Source, Test, guard

_ITERATION = ("__iter__", "__next__", "__getitem__", "__len__", "__length_hint__")
_COMPARISON = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_TEXT = ("__str__", "__repr__", "__format__")
_MAPPING = ("keys", "items", "__getitem__", "__iter__", "__len__", "__missing__")
_KEYS = ("__hash__", "__eq__")

#: By the beginning of an instruction's name.
_INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "POP_JUMP": ("__bool__", "__len__"),
    "JUMP_IF": ("__bool__", "__len__"),
    "UNARY_NOT": ("__bool__", "__len__"),
    "TO_BOOL": ("__bool__", "__len__"),
    "COMPARE_OP": _COMPARISON,
    "CONTAINS_OP": ("__contains__", *_ITERATION, *_KEYS),
    "BINARY_SUBSCR": ("__getitem__", "__missing__", "__class_getitem__", "__index__", *_KEYS),
    "BINARY_SLICE": ("__getitem__", "__index__"),
    "STORE_SUBSCR": ("__setitem__", *_KEYS),
    "STORE_SLICE": ("__setitem__",),
    "DELETE_SUBSCR": ("__delitem__", *_KEYS),
    "STORE_ATTR": ("__setattr__",),
    "DELETE_ATTR": ("__delattr__",),
    "GET_ITER": _ITERATION,
    "UNPACK": _ITERATION,
    "LIST_EXTEND": _ITERATION,
    "SET_UPDATE": (*_ITERATION, *_KEYS),
    "CALL_FUNCTION_EX": (*_ITERATION, *_MAPPING),
    "DICT": _MAPPING,
    "BUILD_MAP": _KEYS,
    "BUILD_SET": _KEYS,
    "FORMAT": _TEXT,
    "CONVERT": _TEXT,
    "BEFORE_WITH": ("__enter__", "__exit__"),
    "SETUP_WITH": ("__enter__", "__exit__"),
    "LOAD_SPECIAL": ("__enter__", "__exit__"),  # from Python 3.14 on
    "UNARY_NEGATIVE": ("__neg__",),
    "UNARY_POSITIVE": ("__pos__",),
    "UNARY_INVERT": ("__invert__",),
    "CALL": ("__call__",),
    "PRECALL": ("__call__",),
}

_ARITHMETIC = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor",
)  # fmt: skip
_BY_SYMBOL = dict(zip(("+", "-", "*", "@", "/", "//", "%", "**", "<<", ">>", "&", "|", "^"), _ARITHMETIC, strict=True))

#: By the name of a function, where it is not the special method's own.
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "deque", "next"), _ITERATION),
    **dict.fromkeys(("any", "all"), (*_ITERATION, "__bool__")),
    **dict.fromkeys(("sorted", "sort", "min", "max"), (*_ITERATION, *_COMPARISON)),
    **dict.fromkeys(("set", "frozenset", "update"), (*_ITERATION, *_KEYS, *_MAPPING)),
    "dict": (*_MAPPING, *_ITERATION),
    "sum": (*_ITERATION, "__add__", "__radd__"),
    "bool": ("__bool__", "__len__"),
    "len": ("__len__",),
    "int": ("__int__", "__index__", "__trunc__"),
    "float": ("__float__", "__index__"),
    "complex": ("__complex__", "__float__", "__index__"),
    "str": _TEXT,
    "repr": _TEXT,
    "print": _TEXT,
    "callable": ("__call__",),
    "isinstance": ("__class__", "__call__"),
    "divmod": ("__divmod__", "__rdivmod__"),
    "reversed": ("__reversed__", "__len__", "__getitem__"),
    "setattr": ("__setattr__",),
    "delattr": ("__delattr__",),
    "getitem": ("__getitem__", "__missing__"),
    "contains": ("__contains__", *_ITERATION),
}
_OF_TORCH = (torch.Tensor, torch.nn.Parameter)
#: What AOTAutograd calls of a class of tensors while it traces.
_OF_SUBCLASSES = ["__torch_dispatch__", "__tensor_flatten__", "__tensor_unflatten__"]
_OWN_NAMES = {"abs", "hash", "round", "pow", "floor", "ceil", "trunc", "index", "dir", "format"}
_OPERATORS = frozenset(name for name in vars(operator) if f"__{name.strip('_')}__" in vars(operator))


def _of_arithmetic(name: str) -> tuple[str, ...]:
    return (f"__{name}__", f"__r{name}__", f"__i{name}__")


def _of_instruction(instruction: dis.Instruction) -> tuple[str, ...]:
    name = instruction.opname
    if name == "BINARY_OP" and instruction.argrepr == "[]":  # from Python 3.14 on
        return _INSTRUCTIONS["BINARY_SUBSCR"]
    if name == "BINARY_OP":
        return _of_arithmetic(_BY_SYMBOL.get(instruction.argrepr.rstrip("="), "add"))
    if name.startswith(("BINARY_", "INPLACE_")) and name not in ("BINARY_SUBSCR", "BINARY_SLICE"):
        return tuple(each for kind in _ARITHMETIC for each in _of_arithmetic(kind))
    return next((found for beginning, found in _INSTRUCTIONS.items() if name.startswith(beginning)), ())


def _of_function(name: str) -> tuple[str, ...]:
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    plain = name.strip("_")
    if plain in _ARITHMETIC or plain in _OPERATORS:
        return (*_of_arithmetic(plain), *(_KEYS if plain == "eq" else ()))
    return (f"__{plain}__",) if plain in _OWN_NAMES else ()


def _names(known: Known) -> list[str]:
    """The special methods that may have been looked up while the frame ran."""
    found = [_of_function(name) for name in known.reads.called]
    for code in dict.fromkeys(known.codes):
        found += [_of_instruction(each) for each in dis.get_instructions(code)]
        found += [_of_function(name) for name in code.co_names]
    return sorted({name for each in found for name in each})


def _is_of_a_user(kind: type) -> bool:
    """Whether somebody may be expected to give the class methods: not to those of torch and of Python."""
    module = getattr(kind, "__module__", None)
    top = module.partition(".")[0] if isinstance(module, str) else ""
    return can_change(kind) and top != "torch" and top not in sys.stdlib_module_names


def specials(known: Known) -> Iterator[Extra]:
    """That the special methods of what took part in operations are found where they were, also if that is nowhere."""
    lookups = Lookups(known)
    kinds = [kind for kind in known.reads.specials.values() if _is_of_a_user(kind)]
    names = _names(known) if kinds else []
    for kind in kinds:
        yield from lookups.special(kind, names)
    for kind in known.reads.made.values():
        if _is_of_a_user(kind):
            yield from lookups.special(kind, ["__new__", "__init__"])
        if _is_of_a_user(type(kind)):
            yield from lookups.special(type(kind), ["__call__"])
    for kind in {type(tensor): None for tensor in known.tensors.values()}:
        if _is_of_a_user(kind):
            yield from lookups.special(kind, _OF_SUBCLASSES)


def methods_of_tensors(known: Known) -> Iterator[Extra]:
    """That ``torch.Tensor`` has no other methods: Dynamo does not look them up.

    Its own attributes that the code names are compared. Most methods are of a base that cannot be changed: one that
    comes to hide such a method is one attribute more.
    """
    kinds = {each for tensor in known.tensors.values() for each in type(tensor).__mro__ if each in _OF_TORCH}
    named = {*_names(known), *(name for code in known.codes for name in code.co_names)} if kinds else set()
    for kind in filter(kinds.__contains__, _OF_TORCH):
        place, own = Source.frame().child(Access.CONSTANT, kind), own_of(kind)
        content = place.child(Access.TYPE_DICT)
        yield Extra(guard(Test.DICT_LENGTH, (content,), (len(own),)), place, "the attributes of tensors")
        for name in sorted(named & own.keys()):
            yield Extra(same_value(content.child(Access.DICT_ITEM, name), own[name]), place, "a method of tensors")
