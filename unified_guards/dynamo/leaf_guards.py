"""What the leaf guards of torch's guard managers say, as guards of a set: one row for each method that adds one.

Entry point: :data:`LEAF_GUARDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch._C._dynamo import guards as native

from unified_guards.dynamo import compat
from unified_guards.dynamo.tap import TENSOR_FACTS
from unified_guards.guards.ir import Guard, Source, Test, guard

#: Gives a name to the object at an address.
Names: TypeAlias = Callable[[int], str]
#: Makes the guard from the source that a manager stands for and the arguments that torch's method was given.
MakeGuard: TypeAlias = Callable[[Names, Source, tuple[Any, ...]], Guard]

#: Leaf guards of which torch keeps the first on a manager and ignores every other, whatever its value.
ONCE = frozenset(
    {
        TENSOR_FACTS,
        "add_type_match_guard",
        "add_fake_script_type_match_guard",
        "add_id_match_guard",
        "add_none_match_guard",
        "add_true_match_guard",
        "add_false_match_guard",
        "add_equals_match_guard",
        "add_length_check_guard",
        "add_dict_length_check_guard",
        "add_tuple_iterator_length_guard",
        "add_range_iterator_match_guard",
        "add_not_none_guard",
        "add_mapping_keys_guard",
        "add_dispatch_key_set_guard",
        "add_dict_version_guard",
    }
)

#: On the manager of a dict whose keys are guarded these do nothing: that manager checks type and length itself.
IMPLIED_BY_DICT_MANAGER = frozenset({"add_type_match_guard", "add_dict_length_check_guard"})


def _torch_id(name_at: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.IS, (source,), (args[0], name_at(args[0])))


def _type(name_at: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.TYPE_IS, (source,), (args[0], name_at(args[0])))


def _equals(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    bits = type(args[0]) in (float, complex) and compat.compares_float_bits()
    return guard(Test.SAME_BITS if bits else Test.EQUALS, (source,), (args[0],))


def _nan(test: Test) -> MakeGuard:
    def make(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
        value = compat.nan_guard_value(args)
        return guard(Test.SAME_BITS, (source,), value) if value else guard(test, (source,))

    return make


def _default_device(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    from torch.utils import _device

    return guard(Test.DEFAULT_DEVICE, (source,), (_device.CURRENT_DEVICE,))


def _dict_version(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DICT_VERSION, (source,), (native.dict_version(args[0]),))


def _dispatch_keys(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DISPATCH_KEYS, (source,), (args[0],))


def _marking(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DIM_MARKING, (source,), args[:3])


def _dynamic_indices(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    return guard(Test.DYNAMIC_INDICES, (source,), ("_dynamo_dynamic_indices", args[0]))


_SAVED_TENSORS_HOOKS = "AUTOGRAD_SAVED_TENSORS_HOOKS.<locals>.fn"


def _predicate(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
    """A Python function. That of the saved-tensors hooks is known by name: it holds the ids that it expects."""
    function, code = args[0], args[1]
    if getattr(function, "__qualname__", "").endswith(_SAVED_TENSORS_HOOKS):
        names = function.__code__.co_freevars
        if "guard_hooks_ids" in names:
            ids = function.__closure__[names.index("guard_hooks_ids")].cell_contents
            return guard(Test.SAVED_HOOKS, (source,), (ids, function))
    return guard(Test.PREDICATE, (source,), (function, " and ".join(code)))


def _of_arguments(test: Test, count: int) -> MakeGuard:
    """A guard whose parameters are the first ``count`` arguments."""

    def make(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
        return guard(test, (source,), args[:count])

    return make


def _singleton(test: Test, value: object) -> MakeGuard:
    def make(_: Names, source: Source, args: tuple[Any, ...]) -> Guard:
        return guard(test, (source,), (id(value), repr(value)))

    return make


LEAF_GUARDS: dict[str, MakeGuard] = {
    "add_type_match_guard": _type,
    "add_fake_script_type_match_guard": lambda name_at, source, args: guard(
        Test.SCRIPT_TYPE, (source,), (args[1], name_at(args[1]), args[0])
    ),
    "add_id_match_guard": _torch_id,
    "add_none_match_guard": _singleton(Test.IS, None),
    "add_true_match_guard": _singleton(Test.IS, True),
    "add_false_match_guard": _singleton(Test.IS, False),
    "add_not_none_guard": _singleton(Test.IS_NOT, None),
    "add_equals_match_guard": _equals,
    "add_length_check_guard": lambda name_at, source, args: guard(
        Test.LENGTH, (source,), (args[0], compat.measures_sets())
    ),
    "add_dict_length_check_guard": _of_arguments(Test.DICT_LENGTH, 1),
    "add_tuple_iterator_length_guard": _of_arguments(Test.TUPLE_ITER_LEN, 2),
    "add_range_iterator_match_guard": _of_arguments(Test.RANGE_ITER, 4),
    "add_mapping_keys_guard": lambda name_at, source, args: guard(
        Test.MAPPING_KEYS, (source,), (tuple(args[0].keys()),)
    ),
    "add_dict_contains_guard": lambda name_at, source, args: guard(Test.DICT_CONTAINS, (source,), (args[1], args[0])),
    "add_set_contains_guard": lambda name_at, source, args: guard(Test.SET_CONTAINS, (source,), (args[1], args[0])),
    "add_no_hasattr_guard": _of_arguments(Test.NO_ATTR, 1),
    "add_float_is_nan_guard": _nan(Test.FLOAT_NAN),
    "add_complex_is_nan_guard": _nan(Test.COMPLEX_NAN),
    "add_dual_level_match_guard": _of_arguments(Test.DUAL_LEVEL, 1),
    "add_default_device_guard": _default_device,
    "add_global_state_guard": _of_arguments(Test.GLOBAL_STATE, 1),
    "add_torch_function_mode_stack_guard": lambda name_at, source, args: guard(
        Test.MODE_STACK, (source,), (tuple(type(mode) for mode in args[0]),)
    ),
    "add_dict_version_guard": _dict_version,
    "add_dispatch_key_set_guard": _dispatch_keys,
    "add_dimension_marking_guard": _marking,
    "add_dynamic_indices_guard": _dynamic_indices,
    "add_lambda_guard": _predicate,
}
