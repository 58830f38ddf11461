"""Rows about guards that are rare, or that some versions of torch do not make: asked directly. What was found, too."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

from unified_guards.guards.accesses import MISSING
from unified_guards.guards.failures import describe, look, shown
from unified_guards.guards.ir import Access, Guard, Provenance, Source, Test, guard
from unified_guards.guards.names import place
from unified_guards.report.advice import Advice, advise
from unified_guards.report.case import path

from ..guards import equals, item, local, tensor_like, without

FRAME = Source.frame()


def advice_on(origin: Guard | Source, f_locals: dict[str, Any], code: str = "") -> Advice:
    return advise(look(origin, (Provenance("dynamo", code),), f_locals))


def text_of(origin: Guard | Source, f_locals: dict[str, Any]) -> str:
    return describe(look(origin, (Provenance("dynamo"),), f_locals))


class Box:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def test_inference_mode() -> None:
    asked = guard(Test.INFERENCE_MODE, (FRAME,), (False,))
    with torch.inference_mode():
        found = advice_on(asked, {})
    assert found.name == "inference mode"
    assert "(found True)" in found.cause


def test_default_device() -> None:
    found = advice_on(guard(Test.DEFAULT_DEVICE, (FRAME,), (torch.device("meta"),)), {})
    assert found.name == "default device"
    assert "(found None)" in found.cause


def test_forward_gradients() -> None:
    asked = guard(Test.DUAL_LEVEL, (FRAME,), (-1,))
    with forward_ad.dual_level():
        found = advice_on(asked, {})
    assert found.name == "forward gradients"
    assert "(found 0)" in found.cause


def test_saved_tensor_hooks() -> None:
    assert advice_on(guard(Test.SAVED_HOOKS, (FRAME,), (None, lambda _: False)), {}).name == "saved tensor hooks"


def test_what_no_row_knows_has_advice_too() -> None:
    found = advice_on(guard(Test.PREDICATE, (local(),), (lambda _: False, "it says so")), {"x": 3})
    assert (found.name, found.cause) == ("other", "it says so does not hold (found 3)")


def other_params(test: Test) -> tuple[Any, ...]:
    """Some parameters for a guard of this kind."""
    known: dict[Test, tuple[Any, ...]] = {
        Test.TENSOR: tensor_like(local(), torch.ones(2)).params,
        Test.MODE_STACK: ((torch.overrides.TorchFunctionMode,),),
        Test.DIM_MARKING: ({}, [], {}),
        Test.DYNAMIC_INDICES: ("_dynamo_dynamic_indices", set()),
        Test.DISPATCH_KEYS: (1,),
        Test.SAVED_HOOKS: (None, lambda _: False),
    }
    return known.get(test, (3, "that thing", 1, 2, 3))


@pytest.mark.parametrize("value", [3, None, "text", [1], {"a": 1}, torch.ones(3), Box(), MISSING], ids=shown)
@pytest.mark.parametrize("test", list(Test), ids=lambda test: test.name)
def test_every_guard_has_advice_whatever_it_found(test: Test, value: Any) -> None:
    made = guard(test, (local(), local("y")) if "{1}" in test.text else (local(),), other_params(test))
    found = advice_on(made, {} if value is MISSING else {"x": value, "y": value})
    assert found.cause and found.remedy and found.term
    assert "(found )" not in found.cause


# -- places ------------------------------------------------------------------------------------------------------------


def key(source: Source, name: str) -> Source:
    return source.child(Access.DICT_ITEM, name)


SELF = local("self")
LAYER = key(item("_modules", key(item("_modules", SELF), "layers")), "0")
PATHS = {
    "self.training": item("training", SELF),
    "self.layers[0].weight": key(item("_parameters", LAYER), "weight"),
    "options['mode']": key(local("options"), "mode"),
    "items[2]": local("items").child(Access.LIST_ITEM, 2),
    "x.size()[1]": local().child(Access.TENSOR_SIZE, 1),
    "FLAG": key(FRAME.child(Access.GLOBALS, {}), "FLAG"),
}


@pytest.mark.parametrize("text", PATHS)
def test_a_place_is_named_as_the_program_writes_it(text: str) -> None:
    assert path(PATHS[text]) == text


# -- what was found ----------------------------------------------------------------------------------------------------

X = local()
FOUND = {
    "len(L['x']) == 1 (found 2)": (guard(Test.LENGTH, (X,), (1, False)), [1, 2]),
    "dict.__len__(L['x']) == 1 (found 2 keys: 'a', 'b')": (guard(Test.DICT_LENGTH, (X,), (1,)), {"a": 1, "b": 2}),
    "dict.__len__(L['x']) == 0 (found 1 key)": (guard(Test.DICT_LENGTH, (X,), (0,)), {Box: 1}),
    "('k' in L['x']) is True (found a dict of 1 ('a'))": (guard(Test.DICT_CONTAINS, (X,), ("k", True)), {"a": 1}),
    "length_hint(L['x']) == 3 (found 1 left of a tuple_iterator)": (
        guard(Test.TUPLE_ITER_LEN, (X,), (3, 0)),
        iter((1,)),
    ),
    "L['x'] is that Box (found another Box)": (guard(Test.IS, (X,), (0, "that Box")), Box()),
    "type(L['x']) is int (found None)": (guard(Test.TYPE_IS, (X,), (id(int), "int")), None),
    "L['x'] is not marked as dynamic (found 3)": (guard(Test.DIM_MARKING, (X,), ({}, [], {})), 3),
}


@pytest.mark.parametrize("text", FOUND)
def test_what_was_found_is_told(text: str) -> None:
    origin, value = FOUND[text]
    assert text_of(origin, {"x": value}) == f"{text}  # dynamo"


def test_a_source_without_a_value_says_what_is_there() -> None:
    assert text_of(key(item("b", local()), "c"), {"x": Box(b={"a": 1})}).endswith(
        "is missing (found L['x'].__dict__['b'] = a dict of 1 ('a'))"
    )


def test_more_values_than_are_shown_are_counted() -> None:
    names = [f"v{at}" for at in range(7)]
    asked = guard(Test.OVERLAP, tuple(map(local, names)), (0,))
    assert "L['v3'] = 1, 3 more)" in text_of(asked, dict.fromkeys(names, 1))


def test_torchs_own_function_of_the_frame_says_which_locals_it_names() -> None:
    asked = guard(Test.SHAPE, (FRAME,), (lambda _: False, "L['x'].size()[0] > 3"))
    assert "(found L['x'] = Tensor float32[2] strides (1) on cpu)" in text_of(asked, {"x": torch.ones(2)})


def test_a_long_value_is_cut() -> None:
    assert len(shown("a" * 1000)) == 120


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.ones(2, 3).to_sparse(), "Tensor float32[2, 3] on cpu"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "Tensor float32, nested, on cpu"),
        (torch.ones(2, device="meta"), "Tensor float32[2] strides (1) on meta"),
        (types, "types"),
        (functools.partial(len), "a partial"),
        (range(3), "a range"),
        (frozenset({1}), "a frozenset of 1 (1)"),
    ],
)
def test_a_value_in_words(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_function_has_its_line() -> None:
    line = test_a_function_has_its_line.__code__.co_firstlineno
    assert shown(test_a_function_has_its_line).endswith(f"test_a_function_has_its_line, {place(__file__, line)}")


def test_a_tensor_without_strides_is_compared_as_far_as_it_goes() -> None:
    assert advice_on(tensor_like(X, torch.ones(2, 3)), {"x": torch.ones(2, 3).to_sparse()}).cause


class Asking(torch.Tensor):
    """A tensor that answers for its sizes and its device by code."""

    @staticmethod
    def __new__(cls) -> Asking:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, (2, 3), dispatch_sizes_strides_policy="sizes", dispatch_device=True
        )

    @classmethod
    def __torch_dispatch__(cls, *_: Any, **__: Any) -> Any:
        raise AssertionError("advice runs no code of the user's")


def test_a_tensor_that_answers_by_code_is_not_asked() -> None:
    assert shown(Asking()) == "a Asking"
    found = advice_on(tensor_like(X, torch.ones(2, 3)), {"x": Asking()})
    assert (found.name, found.cause.rpartition(".")[2]) == ("class of a tensor", "Asking")


def test_names_of_adapters_need_no_certain_library() -> None:
    names = Box(_active_adapter=["second"])
    source = item("_active_adapter").child(Access.LIST_ITEM, 0)
    found = advice_on(equals(source, "first"), {"x": names})
    assert found.name == "adapter"
    assert "x._active_adapter[0] was 'first' when this was compiled and is 'second'" in found.cause


def test_an_attribute_that_is_gone() -> None:
    assert advice_on(local().child(Access.ATTR, "a"), {"x": Box()}).name == "attribute"
    assert advice_on(without(X, "a"), {"x": Box(a=1)}).cause == "x has an attribute a now"
