"""What a ShapeEnv learned while a graph was traced, as guards over sizes, strides and integers.

Entry points: :func:`fake_mode_for`, :func:`make_fake`, :func:`shape_guards`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch._dynamo.source import LocalSource, TensorPropertySource
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from unified_guards.aot.lifting import Leaf
from unified_guards.errors import Unguardable
from unified_guards.guards.expressions import NotAnExpression, Op, Term, const, expression, parse, parts_of, read, term
from unified_guards.guards.ir import TENSOR_NUMBERS, Guard, Provenance, Source


def fake_mode_for(values: list[Any], *, symbolic: bool, **options: Any) -> FakeTensorMode:
    """The fake mode that is active or that the values belong to; else a new one.

    Args:
        values: the leaves of a call.
        symbolic: whether a new one needs a ShapeEnv.
        options: for the constructor of a new one.

    Raises:
        RuntimeError: a fake mode is active and a tensor is real.
    """
    ambient: FakeTensorMode | None = detect_fake_mode(values)
    if ambient is None:
        return FakeTensorMode(shape_env=ShapeEnv() if symbolic else None, **options)
    for at, value in enumerate(values):
        if isinstance(value, torch.Tensor) and not _is_fake(value):
            raise RuntimeError(
                f"a fake mode is active and tensor {at} of this call is real ({tuple(value.shape)}, {value.dtype}). "
                "Convert it first (fake_mode.from_tensor(x)), or make the call outside of the fake mode."
            )
    return ambient


def _is_fake(value: torch.Tensor) -> bool:
    if isinstance(value, FakeTensor):
        return True
    if is_traceable_wrapper_subclass(value):
        names, _ = value.__tensor_flatten__()
        return all(_is_fake(getattr(value, name)) for name in names)
    return False


def _name(at: int) -> LocalSource:
    return LocalSource(f"t{at}")


def make_fake(leaves: list[Leaf], mode: FakeTensorMode) -> None:
    """Converts each leaf, once; what is fake already stays as it is."""
    for at, leaf in enumerate(leaves):
        value = leaf.value
        if not isinstance(value, torch.Tensor):
            leaf.fake = _symbolic_int(value, _name(at), mode.shape_env)
        elif _is_fake(value):
            leaf.fake = value
        elif any(leaf.dynamic) and not is_traceable_wrapper_subclass(value):
            dims = [DimDynamic.DUCK if dynamic else DimDynamic.STATIC for dynamic in leaf.dynamic]
            context = StatelessSymbolicContext(dynamic_sizes=dims)
            leaf.fake = mode.from_tensor(value, source=_name(at), symbolic_context=context)
        else:
            leaf.fake = mode.from_tensor(value, source=_name(at), static_shapes=True)


def _symbolic_int(value: int, source: LocalSource, shape_env: Any) -> Any:
    # Not DUCK: an integer that happens to equal a size is not one.
    symbol = shape_env.create_symbol(value, source, dynamic_dim=DimDynamic.DYNAMIC, positive=None)
    return shape_env.create_symintnode(symbol, hint=value, source=source)


def shape_guards(leaves: list[Leaf], shape_env: Any) -> list[tuple[Guard, Provenance]]:
    """The guards that tracing made, as expressions over the sources of the leaves. Freezes the ShapeEnv.

    Mirrors ``GuardBuilder.SHAPE_ENV`` of torch/_dynamo/guards.py.

    Raises:
        Unguardable: a guard reads something that is not an input.
    """
    symbolic = [(at, leaf) for at, leaf in enumerate(leaves) if _is_symbolic(leaf.fake)]
    if shape_env is None or not symbolic:
        return []
    names: dict[Any, str] = {}
    printed = shape_env.produce_guards_verbose(
        [leaf.fake for _, leaf in symbolic],
        [_name(at) for at, _ in symbolic],
        source_ref=lambda source: names.setdefault(source, f"v{len(names)}"),
    )
    sources = {name: _our_source(source, leaves) for source, name in names.items()}
    lines = _lines(shape_env)
    found: list[tuple[Guard, Provenance]] = []
    for text, said in zip(printed[0].exprs, printed[1].exprs, strict=True):
        try:
            found += _expressions(parse(text, sources), said, lines)
        except NotAnExpression as reason:
            raise Unguardable(str(reason)) from None
    for _, leaf in symbolic:
        if not isinstance(leaf.value, torch.Tensor):
            number = read(leaf.source)
            bounds = term(Op.LT, const(-(2**62)), number), term(Op.LT, number, const(2**62))
            found += [(expression(bound), leaf.maker) for bound in bounds]
    shape_env.freeze()
    return found


def _is_symbolic(fake: Any) -> bool:
    if isinstance(fake, torch.SymInt):
        return True
    return isinstance(fake, torch.Tensor) and any(
        isinstance(number, torch.SymInt) for number in (*fake.size(), *fake.stride(), fake.storage_offset())
    )


def _our_source(source: Any, leaves: list[Leaf]) -> Source:
    if isinstance(source, LocalSource):
        return leaves[int(source.local_name[1:])].source
    if isinstance(source, TensorPropertySource) and isinstance(source.base, LocalSource):
        return _our_source(source.base, leaves).child(TENSOR_NUMBERS[source.prop.method_name()], source.idx)
    raise Unguardable(f"a shape guard reads a {type(source).__name__}")


def _lines(shape_env: Any) -> dict[str, traceback.FrameSummary | None]:
    """By torch's text of a place: the line of the program that asked for a guard or a bound, if one did."""
    places = [item.sloc for item in shape_env.guards]
    for bounds in shape_env.var_to_range_sloc.values():
        places += [bounds.lower, bounds.upper]
    found = ((str(place), getattr(place, "framework_loc", None)) for place in places)
    return {text: line if isinstance(line, traceback.FrameSummary) else None for text, line in found}


def _expressions(
    made: Term, said: str, lines: dict[str, traceback.FrameSummary | None]
) -> Iterator[tuple[Guard, Provenance]]:
    """A guard for each part of a conjunction, over just the sources that it names, and the line that caused it.

    A range is such a conjunction, and torch says behind it where each bound came from.
    """
    parts = parts_of(made)
    comment = said.partition("  # ")[2]
    causes = [lines[place] for place in sorted((place for place in lines if place in comment), key=comment.index)]
    for at, part in enumerate(parts):
        cause = causes[at] if len(causes) == len(parts) else next(filter(None, causes), None)
        stack = None if cause is None else traceback.StackSummary.from_list([cause])
        yield expression(part), Provenance("aot", part.text, stack)
