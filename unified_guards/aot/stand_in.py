"""What Python asks of tensors while a function is traced: stand-ins for captured ones, and questions without a guard.

Entry point: :class:`StandIn`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.overrides import TorchFunctionMode

from unified_guards.aot.lifting import Leaf
from unified_guards.errors import Unguardable

_OFFSET_READERS = frozenset(
    {torch.Tensor.storage_offset, torch.Tensor.as_strided, torch.as_strided, torch.Tensor.as_strided_,
     torch.Tensor.as_strided_scatter, torch.as_strided_scatter}
)  # fmt: skip
#: Properties of an input that its guards determine, or whose value is a tensor that the graph computes.
_GUARDED = frozenset(
    {
        *(
            "shape",
            "dtype",
            "device",
            "layout",
            "ndim",
            "requires_grad",
            "itemsize",
            "nbytes",
            "names",
            "name",
            "volatile",
        ),
        *("T", "mT", "H", "mH", "real", "imag", "data"),
        *("is_cpu", "is_cuda", "is_ipu", "is_maia", "is_meta", "is_mkldnn", "is_mps", "is_mtia", "is_nested"),
        *("is_quantized", "is_sparse", "is_sparse_csr", "is_vulkan", "is_xla", "is_xpu"),
    }
)
#: Calls whose effect or answer is outside of any graph.
_OUTSIDE = frozenset(
    {
        *("backward", "requires_grad_", "retain_grad", "register_hook", "register_post_accumulate_grad_hook"),
        *("set_", "data_ptr", "numpy", "__array__", "tolist", "_is_view", "is_set_to", "share_memory_", "is_shared"),
    }
)


class StandIn(TorchFunctionMode):
    """While tracing: gives torch the traced tensor wherever the function hands it a real one that it captured.

    A mode, because what the function captured (a variable around it, a global) is not ours to write to. It also sees
    when Python asks a tensor for something that no guard is about: then the function has to be run, not compiled.

    Args:
        traced: by the address of the real tensor.
        leaves: by the address of the traced tensor.

    Attributes:
        reads_offset: whether the function looked at where a tensor begins in its storage.
        refused: what it asked for that no guard is about.
    """

    def __init__(self, traced: dict[int, Any], leaves: dict[int, Leaf]) -> None:
        super().__init__()
        self.traced = traced
        self.leaves = leaves
        self.inputs = {id(tensor) for tensor in traced.values()}
        self.reads_offset = False
        self.refused: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in _OFFSET_READERS:
            self.reads_offset = True
        if self.traced:
            args, named = self.swap(args), self.swap(named)
        self._refuse(func, args, named)
        return func(*args, **named)

    def _refuse(self, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        name = getattr(func, "__name__", "")
        asked = None
        if name in ("__get__", "__set__", "__delete__"):
            owner = getattr(func, "__self__", None)
            what = getattr(owner, "__name__", None) or getattr(getattr(owner, "fget", None), "__name__", "")
            if name != "__get__" or (what not in _GUARDED and args and id(args[0]) in self.inputs):
                asked = f"{'reads' if name == '__get__' else 'sets'} the attribute {what} of a tensor"
        elif name in _OUTSIDE:
            asked = f"calls {name}() of a tensor"
        elif named.get("requires_grad"):
            asked = "makes a tensor that requires grad"
        if asked is not None:
            self.refused = asked
            raise Unguardable(f"the function {asked}")

    def ask(self, tensor: torch.Tensor, name: str) -> None:
        """The function asks for an attribute that a traced tensor does not have. The real one may have it."""
        leaf = self.leaves.get(id(tensor))
        if leaf is None:
            return
        if name in getattr(leaf.value, "__dict__", ()) or hasattr(type(leaf.value), name):
            self.refused = f"reads the attribute {name} of a tensor"
            raise Unguardable(f"the function {self.refused}")
        leaf.absent.add(name)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block the function's questions for attributes that a traced tensor lacks come to :meth:`ask`."""
        with _lock:
            _watching.append(self)
            if len(_watching) == 1:
                _put_hook()
        try:
            yield
        finally:
            with _lock:
                _watching.remove(self)
                if not _watching:
                    _take_hook_away()

    def swap(self, value: Any) -> Any:
        """``value`` with every captured tensor replaced, in tuples, lists and dicts too."""
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return self.traced.get(id(value), value)
        if isinstance(value, tuple) and hasattr(kind, "_make"):
            return kind._make([self.swap(item) for item in value])
        if kind is tuple or isinstance(value, list):
            swapped = [self.swap(item) for item in value]
            return tuple(swapped) if kind is tuple else swapped
        if kind is dict:
            return {key: self.swap(item) for key, item in value.items()}
        return value


#: Those that are tracing now, in any thread, and what they share: the classes of traced tensors have a hook meanwhile.
_watching: list[StandIn] = []
_lock = threading.RLock()
_TRACED: tuple[Any, ...] = (FakeTensor, FunctionalTensor)
_TORCHS = os.path.dirname(torch.__file__)


def _absent(tensor: torch.Tensor, name: str) -> Any:
    """``__getattr__`` of a traced tensor: it has no such attribute. Torch's own code may ask for anything."""
    if not sys._getframe(1).f_code.co_filename.startswith(_TORCHS):
        for mode in list(_watching):
            mode.ask(tensor, name)
    raise AttributeError(f"{type(tensor).__name__!r} object has no attribute {name!r}")


def _put_hook() -> None:
    for kind in _TRACED:
        kind.__getattr__ = _absent


def _take_hook_away() -> None:
    for kind in _TRACED:
        del kind.__getattr__
