"""In which respects what a guard found is other than what it expects, each by its name.

Entry points: :func:`of_tensor`, :func:`of_state`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch._C._dynamo import guards as native

from unified_guards.guards.ir import TensorFacts
from unified_guards.guards.names import is_torchs, name_of
from unified_guards.guards.semantics import after_dispatch_state, strides_of


class Difference(NamedTuple):
    """One respect.

    Attributes:
        kind: of which kind it is, for the table of causes: ``"size"``, ``"dtype"``, ``"grad_mode"``, …
        what: its name in words: "dimension 0", "dtype", "grad mode".
        expected: what it was when the code was compiled.
        found: what it is now.
    """

    kind: str
    what: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.what} is {self.found}, not {self.expected}"


# -- tensors -----------------------------------------------------------------------------------------------------------


def of_tensor(facts: TensorFacts, value: Any) -> list[Difference]:
    """How a tensor is other than a guard's, the respect first that says most.

    Nothing is asked of a tensor that would answer by code of the user's.
    """
    with torch._C.DisableTorchFunction():
        if answers_by_code(value):
            return [] if id(type(value)) == facts.type_id else [_of_class(facts, value)]
        found = [*_of_kind(facts, value), *_of_dims(facts, value)]
        return found or list(_of_keys(facts, value))


def answers_by_code(value: torch.Tensor) -> bool:
    """Whether sizes and device of a tensor may come from the ``__torch_dispatch__`` of a class that is not torch's."""
    has_python = torch._C._dispatch_keys(value).has(torch._C.DispatchKey.Python)
    return has_python and not is_torchs(type(value))


def _of_class(facts: TensorFacts, value: torch.Tensor) -> Difference:
    return Difference("class", "class", facts.type_name, name_of(type(value)))


def _of_kind(facts: TensorFacts, value: torch.Tensor) -> Iterator[Difference]:
    kind, device, dtype = type(value), str(value.device), str(value.dtype).removeprefix("torch.")
    if id(kind) != facts.type_id:
        yield _of_class(facts, value)
    if device != facts.device_name and facts.device_name:
        yield Difference("device", "device", facts.device_name, device)
    if dtype != facts.dtype_name:
        yield Difference("dtype", "dtype", facts.dtype_name, dtype)
    if value.requires_grad != facts.requires_grad:
        yield Difference("requires_grad", "requires_grad", facts.requires_grad, value.requires_grad)


def _of_dims(facts: TensorFacts, value: torch.Tensor) -> Iterator[Difference]:
    if value.is_nested or value.dim() != len(facts.sizes):
        if value.dim() != len(facts.sizes):
            yield Difference("rank", "number of dimensions", len(facts.sizes), value.dim())
        return
    sizes = list(_of_each("size", "dimension {}", facts.sizes, tuple(value.size())))
    # Strides follow sizes, so they say something only where the sizes are as expected.
    yield from sizes or _of_each("stride", "stride of dimension {}", facts.strides, strides_of(value))


def _of_each(kind: str, what: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[Difference]:
    for at, (want, got) in enumerate(zip(expected, found, strict=True)):
        if want is not None and type(got) is int and got != want:
            yield Difference(kind, what.format(at), want, got)


def _of_keys(facts: TensorFacts, value: torch.Tensor) -> Iterator[Difference]:
    """Dispatch keys, where nothing else tells the tensors apart. In inference mode no tensor has those of autograd."""
    expected, found = _keys(facts.keys), _keys(after_dispatch_state(torch._C._dispatch_keys(value)))
    made = {True: "a tensor made in inference mode", False: "an ordinary tensor"}
    was_made_there, is_there = (not any(key.startswith("Autograd") for key in keys) for keys in (expected, found))
    if is_there and not was_made_there and not value.is_inference():
        yield Difference("inference_mode", "torch.inference_mode()", _SWITCHED[False], _SWITCHED[True])
    elif expected != found and value.is_inference() != was_made_there:
        yield Difference("inference", "it", made[was_made_there], made[value.is_inference()])
    elif expected != found:
        gone, new = (", ".join(sorted(keys)) for keys in (expected - found, found - expected))
        with_gone, with_new = (f"with {keys}" if keys else "" for keys in (gone, new))
        yield Difference("keys", "set of dispatch keys", with_gone or f"without {new}", with_new or f"without {gone}")


def _keys(raw: int) -> set[str]:
    text = str(torch._C.DispatchKeySet.from_raw_repr(raw))
    return {name for name in text.partition("(")[2].rstrip(")").split(", ") if name}


# -- the state of torch ------------------------------------------------------------------------------------------------

#: The names that torch's guard has for its parts, and ours.
_PARTS = {
    "grad_mode": "grad mode",
    "num_threads": "the number of threads",
    "default_dtype": "the default dtype",
    "deterministic_algorithms": "torch.use_deterministic_algorithms",
    "deterministic_algorithms_warn_only": "warn_only of torch.use_deterministic_algorithms",
    "allow_tf32": "TF32 in matrix products (float32 matmul precision)",
    "allow_fp16_reduce": "reductions in float16",
    "allow_bf16_reduce": "reductions in bfloat16",
    "torch_function": "__torch_function__",
    "torch_function_all_disabled": "__torch_function__ switched off for all classes",
}
_SWITCHED = {True: "on", False: "off"}


def of_state(expected: Any) -> list[Difference]:
    """Which parts of torch's global state are other than a guard's, which is torch's. Of any other guard nothing."""
    if type(expected) is not native.GlobalStateGuard:
        return []
    before, now = (json.loads(state.__getstate__()) for state in (expected, native.GlobalStateGuard()))
    autocast = before.pop("autocast_state", {}), now.pop("autocast_state", {})
    names = list(dict.fromkeys(re.findall(r"autocast\((\w+)\)", expected.reason())))
    parts = [
        Difference(name, _PARTS.get(name, name), _shown(name, was), _shown(name, now[name]))
        for name, was in before.items()
        if now.get(name, was) != was
    ]
    return [*parts, *_of_autocast(*autocast, names)]


def _of_autocast(before: dict[str, Any], now: dict[str, Any], names: list[str]) -> Iterator[Difference]:
    """Of each device in torch's order, in which ``names`` has those that are other."""
    states = [list(zip(each.get("enabled", ()), each.get("dtype", ()), strict=False)) for each in (before, now)]
    others = [(then, after) for then, after in zip(*states, strict=False) if then != after]
    for at, ((was, dtype), (is_on, dtype_now)) in enumerate(others):
        name = f"autocast of {names[at]}" if len(names) == len(others) else "autocast"
        if bool(was) != bool(is_on):
            yield Difference("autocast", name, _SWITCHED[bool(was)], _SWITCHED[bool(is_on)])
        else:
            yield Difference("autocast", f"the dtype of {name}", _dtype(dtype), _dtype(dtype_now))
    if before.get("cached_enabled") != now.get("cached_enabled"):
        expected, found = (_shown("", each.get("cached_enabled")) for each in (before, now))
        yield Difference("autocast", "the cache of autocast", expected, found)


def _shown(name: str, value: Any) -> Any:
    if type(value) is bool:
        return _SWITCHED[value]
    return _dtype(value) if name == "default_dtype" else value


def _dtype(number: Any) -> Any:
    """The dtype that torch's number of a scalar type stands for."""
    names = {5: "float16", 6: "float32", 7: "float64", 15: "bfloat16"}
    return f"torch.{names[number]}" if number in names else number
