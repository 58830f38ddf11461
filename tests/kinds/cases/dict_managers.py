"""Cases of guard managers of dicts, which guard keys too."""

from __future__ import annotations

import collections
from typing import Any

from ..building import DICT, PLAIN, Case, add, below, kind, local, values
from ..objects import LyingLength, RaisingEq
from .accessors import IS_3, deleted
from .leaf_guards import Moved, moved_to_end


def dict_manager(root: Any, example: dict[Any, Any]) -> Any:
    return local(root, example_value=example, guard_manager_enum=DICT)


def ordered_keys(root: Any) -> None:
    manager = dict_manager(root, {"a": 3, "b": 4})
    for index, key in enumerate("ab"):
        manager_of_key = manager.get_key_manager(
            index=index, source=f"key {index}", example_value=None, guard_manager_enum=PLAIN
        )
        add(manager_of_key, "add_equals_match_guard", key)
    value = manager.get_value_manager(index=0, source="value 0", example_value=None, guard_manager_enum=PLAIN)
    add(value, *IS_3)


@kind("get_key_manager", "get_value_manager", cls="DictGuardManager")
def keys_and_values_in_order() -> Case:
    return values(
        ordered_keys,
        {
            "same": {"a": 3, "b": 4},
            "other value": {"a": 3, "b": 9},
            "after deletions": deleted({0: 0, "a": 3, "b": 4}, 0),
        },
        {
            "order": {"b": 4, "a": 3},
            "guarded value": {"a": 4, "b": 4},
            "longer": {"a": 3, "b": 4, "c": 5},
            "shorter": {"a": 3},
            "keys": {"a": 3, "c": 4},
            "subclass": collections.OrderedDict(a=3, b=4),
            "wrong type": [("a", 3)],
            "raising": {RaisingEq(): 3, "b": 4},
        },
    )


@kind("get_key_manager", "get_value_manager", cls="DictGuardManager")
def values_before_keys_were_asked_for() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 3, "b": 4})
        for index, expected in ((1, 4), (0, 3)):
            value = manager.get_value_manager(
                index=index, source=f"value {index}", example_value=None, guard_manager_enum=PLAIN
            )
            add(value, "add_equals_match_guard", expected)
        key = manager.get_key_manager(index=1, source="key 1", example_value=None, guard_manager_enum=PLAIN)
        add(key, "add_equals_match_guard", "b")

    return values(build, {"same": {"a": 3, "b": 4}, "free key": {"z": 3, "b": 4}}, {"key": {"a": 3, "z": 4}})


@kind("get_key_manager", cls="DictGuardManager")
def keys_of_an_ordered_dict_that_was_moved() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, Moved(a=1, b=2))
        key = manager.get_key_manager(index=0, source="key 0", example_value=None, guard_manager_enum=PLAIN)
        add(key, "add_equals_match_guard", "a")

    return values(
        build, {"unmoved": Moved(a=1, b=2), "moving goes unnoticed": moved_to_end()}, {"order": Moved(b=1, a=2)}
    )


@kind("add_dict_contains_guard", "add_no_hasattr_guard", cls="DictGuardManager")
def an_empty_dict_is_not_looked_into() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {})
        add(manager, "add_dict_contains_guard", True, "a")
        add(manager, "add_no_hasattr_guard", "keys")

    return values(build, {"empty": {}}, {"filled": {"a": 1}, "wrong type": []})


@kind("add_type_match_guard", "add_dict_length_check_guard", cls="DictGuardManager")
def a_dict_manager_checks_type_and_length_itself() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 1})
        add(manager, "add_type_match_guard", id(list))
        add(manager, "add_dict_length_check_guard", 7)

    return values(build, {"same": {"a": 1}, "other": {"b": 2}}, {"length": {}, "subclass": LyingLength(a=1)})


@kind("add_dict_contains_guard", cls="DictGuardManager")
def a_dict_manager_with_contains() -> Case:
    def build(root: Any) -> None:
        add(dict_manager(root, {"a": 1}), "add_dict_contains_guard", True, "a")
        return None

    return values(build, {"there": {"a": 1}}, {"absent": {"b": 1}})


@kind("add_no_hasattr_guard", cls="DictGuardManager")
def a_dict_manager_with_no_hasattr() -> Case:
    def build(root: Any) -> None:
        add(dict_manager(root, Moved(a=1)), "add_no_hasattr_guard", "extra")

    extra = Moved(a=1)
    extra.extra = 3  # type: ignore[attr-defined]
    return values(build, {"absent": Moved(a=1)}, {"there": extra})


@kind("add_dict_version_guard", cls="DictGuardManager")
def a_dict_manager_with_a_version() -> Case:
    guarded = {"a": 1}

    def build(root: Any) -> None:
        add(dict_manager(root, guarded), "add_dict_version_guard", guarded)

    return values(build, {"same": guarded}, {"equal": {"a": 1}})


@kind("getattr_manager", cls="DictGuardManager")
def an_attribute_of_a_guarded_dict() -> Case:
    def build(root: Any) -> None:
        add(below(dict_manager(root, Moved(a=1)), "getattr_manager", attr="extra"), *IS_3)

    def with_extra(value: int) -> Moved:
        made = Moved(a=1)
        made.extra = value  # type: ignore[attr-defined]
        return made

    return values(build, {"passes": with_extra(3)}, {"other": with_extra(4), "absent": Moved(a=1)})
