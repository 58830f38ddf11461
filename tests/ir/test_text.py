"""The text of sources, guards and sets, and the lines that guards come from."""

from __future__ import annotations

import copy
import re
import traceback
import weakref

import pytest
import torch

from unified_guards.dynamo import compat
from unified_guards.guards.ir import Access, GuardSet, Provenance, Source, Test, guard

from ..corpus.functions import global_helper
from ..guards import equals, local
from ..shapes import shape
from .making import ROWS, X, Y, golden, item, lifted

# -- text --------------------------------------------------------------------------------------------------------------

TEXTS = {
    "L['x']": local(),
    "L['x']['a']": item("a"),
    "L['x'].a": local().child(Access.ATTR, "a"),
    "object.__getattribute__(L['x'], 'a')": local().child(Access.GENERIC_ATTR, "a"),
    "G['a']": item("a", Source.frame().child(Access.GLOBALS, {})),
    "L['x'].__dict__": local().child(Access.GENERIC_DICT),
    "type(L['x']).__mro__": local().child(Access.TYPE).child(Access.TYPE_MRO),
    "L['x'].size()[1]": local().child(Access.TENSOR_SIZE, 1),
    "list(L['x'])[0]": local().child(Access.DICT_KEY_AT, 0),
    "list(L['x'].values())[0]": local().child(Access.DICT_VALUE_AT, 0),
    "L['x']()": local().child(Access.WEAKREF_CALL),
    "len(L['x'])": local().child(Access.CALL1, len),
    "<frame>": Source.frame(),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_source_reads_like_python(text: str) -> None:
    assert str(TEXTS[text]) == text


GUARD_TEXTS = {
    "list(L['x']) is ('a', 1), in order": guard(Test.KEYS, (X,), (("a", 1),)),
    "L['x'].size()[0] > 2 * L['y'] + 10": shape("v0 > 2*v1 + 10", ROWS, Y),
    "L['x'] is exactly (1, True)": guard(Test.DEEP_EQUALS, (X,), ((1, True),)),
    "L['x'] is tests.corpus.functions.global_helper": guard(
        Test.IS_TARGET, (X,), (weakref.ref(global_helper), "tests.corpus.functions.global_helper")
    ),
    "no two of (L['x'], L['y']) share memory": guard(Test.UNIQUE_STORAGE, (X, Y)),
    "L['y'] shares the memory of L['x']": guard(Test.SHARES_STORAGE, (X, Y)),
}


@pytest.mark.parametrize("text", GUARD_TEXTS)
def test_a_guard_reads_like_python(text: str) -> None:
    assert str(GUARD_TEXTS[text]) == text


@pytest.mark.parametrize("text", GUARD_TEXTS)
def test_a_guard_made_again_is_the_same_object(text: str) -> None:
    made = GUARD_TEXTS[text]
    assert guard(made.test, made.sources, copy.deepcopy(made.params)) is made


@pytest.mark.parametrize("access", list(Access), ids=lambda access: access.name)
def test_every_access_has_a_text(access: Access) -> None:
    assert Source.frame().child(access, 0).text is not None


GOLDEN = """\
type(L['d']) is dict
L['d']['a'] == 3
type(L['d']['b']) is list
len(L['d']['b']) == 1
L['d']['b'][0] == 'text'
L['x'] is torch.Tensor float32[2, 3] strides (3, 1) on cpu
L['x'] is not marked as dynamic
L['flag'] is True
"""


def about_locals(guard_set: GuardSet) -> str:
    return "".join(f"{item}\n" for item in guard_set if item.source is not Source.frame())


@pytest.mark.skipif(compat.TORCH < (2, 13), reason="torch 2.11 guards the marking of dimensions otherwise")
def test_the_text_of_a_small_function() -> None:
    assert about_locals(lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})) == GOLDEN


def test_the_text_repeats_from_compile_to_compile_and_holds_no_addresses() -> None:
    texts = [about_locals(lifted(golden, torch.ones(2, 3), True, {"a": 3, "b": ["text"]})) for _ in range(2)]
    assert texts[0] == texts[1]
    assert not re.search(r"0x[0-9a-f]{6}", texts[0])


def test_the_text_of_a_set_names_the_makers() -> None:
    stack = traceback.StackSummary.from_list([("model.py", 7, "forward", None)])
    text = str(GuardSet([(equals(local(), 3), Provenance("dynamo", "code", stack))]))
    assert text == "L['x'] == 3  # dynamo, model.py:7"


# -- provenance --------------------------------------------------------------------------------------------------------


def test_a_guard_knows_the_line_that_made_it() -> None:
    def function(x: torch.Tensor, d: dict[str, int]) -> torch.Tensor:
        x = x + 1
        return x * d["a"]  # this line

    guard_set = lifted(function, torch.ones(2), {"a": 3})
    (maker,) = guard_set.provenance(equals(item("a", local("d")), 3))
    assert maker.maker == "dynamo"
    assert maker.file == __file__
    assert maker.line == function.__code__.co_firstlineno + 2
    assert "L['d']['a'] == 3" in maker.code


def test_shape_guards_are_the_shape_envs() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.size(0) > 3 else x

    counts = lifted(function, torch.ones(8), dynamic=True).counts_by_provenance()
    assert counts["shape_env"] >= 1
    assert counts["dynamo"] >= 1


def test_provenance_without_a_stack_has_no_line() -> None:
    assert (Provenance("aot").file, Provenance("aot").line, str(Provenance("aot"))) == (None, None, "aot")
