"""Programs that are compiled again, one for each cause; and others that follow the advice, and are not.

A case is a function that gets ``compiling``, a ``torch.compile`` that counts, calls what that returns, and returns it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import torch

import unified_guards

from ..harness import ones

Program = Callable[[Callable[..., Any]], Any]


@dataclasses.dataclass
class Case:
    """A cause.

    Attributes:
        name: of the row of the table.
        again: the program that is compiled again.
        cause: what the advice says of the cause.
        remedy: a part of what it says to do.
        followed: programs that do that, each with how many versions it needs at most.
    """

    name: str
    again: Program
    cause: str
    remedy: str
    followed: list[tuple[Program, int]] = dataclasses.field(default_factory=list)


CASES: list[Case] = []


def again(name: str, cause: str, remedy: str) -> Callable[[Program], Case]:
    def add(program: Program) -> Case:
        made = Case(name, program, cause, remedy)
        CASES.append(made)
        return made

    return add


def follows(case: Case, versions: int = 1) -> Callable[[Program], Program]:
    def add(program: Program) -> Program:
        case.followed.append((program, versions))
        return program

    return add


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


# -- sizes -------------------------------------------------------------------------------------------------------------


@again("size", "dimension 0 of x was 8 when this was compiled and is 16", "torch._dynamo.mark_dynamic(x, 0)")
def batch(compiling: Any) -> Any:
    run = compiling(double)
    for rows in (8, 16, 4):
        run(ones(rows, 4))
    return run


@follows(batch)
def batch_marked(compiling: Any) -> None:
    run = compiling(double)
    for rows in (8, 16, 4):
        x = ones(rows, 4)
        torch._dynamo.mark_dynamic(x, 0)
        run(x)


@follows(batch)
def batch_dynamic(compiling: Any) -> None:
    run = compiling(double, dynamic=True)
    for rows in (8, 16, 4):
        run(ones(rows, 4))


@follows(batch)
def batch_padded(compiling: Any) -> None:
    run = compiling(double)
    for rows in (8, 16, 4):
        run(torch.nn.functional.pad(ones(rows, 4), (0, 0, 0, 16 - rows)))


@again("size", "dimension 1 of x was 5 when this was compiled and is 7", "dynamic=False, with which this was compiled")
def sequence_with_dynamic_off(compiling: Any) -> Any:
    run = compiling(double, dynamic=False)
    for length in (5, 7):
        run(ones(2, length))
    return run


@follows(sequence_with_dynamic_off, versions=2)
def sequence_with_automatic_dynamic(compiling: Any) -> None:
    run = compiling(double)
    for length in (5, 7, 9, 11):
        run(ones(2, length))


@again("0 or 1", "x.size()[0] is 1, and this was compiled for sizes from 2 on", "pad it to 2")
def last_batch_of_one(compiling: Any) -> Any:
    run = compiling(double, dynamic=True)
    for rows in (4, 1):
        run(ones(rows))
    return run


@follows(last_batch_of_one)
def last_batch_padded(compiling: Any) -> None:
    run = compiling(double, dynamic=True)
    for rows in (4, 2):
        run(ones(rows))


@follows(last_batch_of_one)
def batch_unbacked(compiling: Any) -> None:
    run = compiling(double)
    for rows in (4, 1, 0):
        x = ones(rows) if rows else torch.ones(0)
        torch._dynamo.decorators.mark_unbacked(x, 0)
        run(x)


@again("0 or 1", "dimension 0 of x was 1 when this was compiled and is 4", "mark_unbacked(tensor, dim)")
def first_batch_of_one(compiling: Any) -> Any:
    run = compiling(double)
    for rows in (1, 4):
        run(ones(rows))
    return run


@follows(first_batch_of_one)
def first_batch_padded(compiling: Any) -> None:
    last_batch_padded(compiling)


@again("number of dimensions", "number of dimensions of x was 2 when this was compiled and is 1", "unsqueeze(0)")
def rank(compiling: Any) -> Any:
    run = compiling(double)
    run(ones(3, 4))
    run(ones(4))
    return run


@follows(rank)
def rank_same(compiling: Any) -> None:
    run = compiling(double, dynamic=True)
    run(ones(3, 4))
    run(torch.cat([ones(4).unsqueeze(0)] * 2))


@again("equal sizes", "sizes that were equal when this was compiled differ", "use_duck_shape = False")
def duck(compiling: Any) -> Any:
    run = compiling(lambda x, y: (x * 2, y * 3), dynamic=True)
    run(ones(4), ones(4))
    run(ones(4), ones(5))
    return run


@follows(duck)
def duck_off(compiling: Any) -> None:
    from torch.fx.experimental import _config

    with _config.patch(use_duck_shape=False):
        duck.again(compiling)


@follows(duck)
def duck_other_sizes(compiling: Any) -> None:
    run = compiling(lambda x, y: (x * 2, y * 3), dynamic=True)
    run(ones(4), ones(5))
    run(ones(4), ones(4))


@again("condition on sizes", "this was compiled for", "take the branch outside")
def branch_on_a_size(compiling: Any) -> Any:
    run = compiling(lambda x: x * 2 if x.shape[0] > 4 else x * 3, dynamic=True)
    run(ones(8))
    run(ones(3))
    return run


@follows(branch_on_a_size)
def branch_outside(compiling: Any) -> None:
    run = compiling(lambda x, factor: x * factor, dynamic=True)
    for rows in (8, 3):
        run(ones(rows), torch.tensor(2 if rows > 4 else 3))


@again("marking", "x was marked otherwise when this was compiled", "mark the tensors of the first call")
def marked_late(compiling: Any) -> Any:
    run = compiling(double)
    run(ones(4, 4))
    x = ones(4, 4)
    torch._dynamo.mark_dynamic(x, 0)
    run(x)
    return run


@follows(marked_late)
def marked_at_once(compiling: Any) -> None:
    batch_marked(compiling)


# -- tensors -----------------------------------------------------------------------------------------------------------


@again("dtype", "dtype of x was float32 when this was compiled and is float64", "before the call: x.to(torch.float32)")
def dtype(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    run(ones(dtype=torch.float64))
    return run


@follows(dtype)
def dtype_converted(compiling: Any) -> None:
    run = compiling(double)
    run(ones())
    run(ones(dtype=torch.float64).to(torch.float32))


@again("device", "device of x was cpu when this was compiled and is meta", "before the call: x.to('cpu')")
def device(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    run(ones(device="meta"))
    return run


@follows(device)
def device_same(compiling: Any) -> None:
    run = compiling(double)
    run(ones(device="cpu"))
    run(ones().to("cpu"))


@again("requires_grad", "requires_grad of x was False when this was compiled and is True", "tensor.detach()")
def requires_grad(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    run(ones(requires_grad=True))
    return run


@follows(requires_grad)
def requires_grad_detached(compiling: Any) -> None:
    run = compiling(double)
    run(ones())
    run(ones(requires_grad=True).detach())


@again("strides", "stride of dimension 0 of x was 4 when this was compiled and is 1", "tensor.contiguous()")
def strides(compiling: Any) -> Any:
    run = compiling(double)
    run(ones(3, 4))
    run(ones(4, 3).t())
    return run


@follows(strides)
def strides_contiguous(compiling: Any) -> None:
    run = compiling(double)
    run(ones(3, 4))
    run(ones(4, 3).t().contiguous())


@again(
    "class of a tensor",
    "class of x was torch.Tensor when this was compiled and is torch.nn.parameter.Parameter",
    "detach",
)
def parameter(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    run(torch.nn.Parameter(ones()))
    return run


@follows(parameter)
def parameter_detached(compiling: Any) -> None:
    run = compiling(double)
    run(ones())
    run(torch.nn.Parameter(ones()).detach())


@again(
    "inference tensor",
    "x was an ordinary tensor when this was compiled and is a tensor made in inference mode",
    "clone()",
)
def inference_tensor(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    with torch.inference_mode():
        made = ones()
    run(made)
    return run


@follows(inference_tensor)
def inference_tensor_cloned(compiling: Any) -> None:
    run = compiling(double)
    run(ones())
    with torch.inference_mode():
        made = ones()
    run(made.clone())


@again(
    "dispatch keys",
    "set of dispatch keys of x was without Conjugate when this was compiled and is with Conjugate",
    "resolve_conj()",
)
def conjugate(compiling: Any) -> Any:
    run = compiling(double)
    run(ones(dtype=torch.complex64))
    run(ones(dtype=torch.complex64).conj())
    return run


@follows(conjugate)
def conjugate_resolved(compiling: Any) -> None:
    run = compiling(double)
    run(ones(dtype=torch.complex64))
    run(ones(dtype=torch.complex64).conj().resolve_conj())


@again(
    "optional argument", "y was None when this was compiled and is Tensor float32[3]", "a tensor that changes nothing"
)
def optional(compiling: Any) -> Any:
    run = compiling(lambda x, y=None: x * 2 if y is None else x * 2 + y)
    run(ones())
    run(ones(), ones())
    return run


@follows(optional)
def optional_always_there(compiling: Any) -> None:
    run = compiling(lambda x, y: x * 2 + y)
    run(ones(), torch.zeros(3))
    run(ones(), ones())


@again("optional argument", "y was a tensor when this was compiled and is None", "pass it always or never")
def optional_left_out(compiling: Any) -> Any:
    run = compiling(lambda x, y=None: x * 2 if y is None else x * 2 + y)
    run(ones(), ones())
    run(ones())
    return run


@follows(optional_left_out)
def optional_never_left_out(compiling: Any) -> None:
    optional_always_there(compiling)


@again("not a tensor", "y was a torch.Tensor float32[] when this was compiled and is 2", "torch.tensor(value)")
def number_for_a_tensor(compiling: Any) -> Any:
    run = compiling(add)
    run(ones(), torch.tensor(1.0))
    run(ones(), 2)
    return run


@follows(number_for_a_tensor)
def number_as_a_tensor(compiling: Any) -> None:
    run = compiling(add)
    run(ones(), torch.tensor(1.0))
    run(ones(), torch.tensor(2.0))


@again("aliases", "L['x'] and L['y'] are the same object", "tensor.clone()")
def aliases(compiling: Any) -> Any:
    run, x = compiling(add), ones()
    run(x, ones())
    run(x, x)
    return run


@follows(aliases)
def aliases_cloned(compiling: Any) -> None:
    run, x = compiling(add), ones()
    run(x, ones())
    run(x, x.clone())


# -- the state of torch ------------------------------------------------------------------------------------------------


@again("grad mode", "grad mode was on when this was compiled and is off", "under the same grad mode")
def grad_mode(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    with torch.no_grad():
        run(ones())
    return run


@follows(grad_mode)
def grad_mode_same(compiling: Any) -> None:
    run = compiling(double)
    for _ in range(2):
        with torch.no_grad():
            run(ones())


@follows(grad_mode)
def grad_mode_inside(compiling: Any) -> None:
    def without(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return x * 2

    run = compiling(without)
    run(ones())
    run(ones())


@again("autocast", "autocast of cpu was off when this was compiled and is on", "under the same torch.autocast")
def autocast(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(ones())
    return run


@follows(autocast)
def autocast_same(compiling: Any) -> None:
    run = compiling(double)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            run(ones())


def _set_late(change: Callable[[], object]) -> Program:
    def program(compiling: Any) -> Any:
        run = compiling(double)
        run(ones(dtype=torch.float32))
        change()
        run(ones(dtype=torch.float32))
        return run

    return program


def _set_first(change: Callable[[], object]) -> Program:
    def program(compiling: Any) -> None:
        change()
        run = compiling(double)
        run(ones(dtype=torch.float32))
        run(ones(dtype=torch.float32))

    return program


def _state(name: str, cause: str, remedy: str, change: Callable[[], object]) -> None:
    follows(again(name, cause, remedy)(_set_late(change)))(_set_first(change))


def _another_number_of_threads() -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


_state(
    "default dtype",
    "the default dtype was torch.float32 when this was compiled and is torch.float64",
    "set_default_dtype() once",
    lambda: torch.set_default_dtype(torch.float64),
)
_state("threads", "the number of threads was", "set_num_threads() once", _another_number_of_threads)
_state(
    "deterministic",
    "torch.use_deterministic_algorithms was off when this was compiled and is on",
    "use_deterministic_algorithms() once",
    lambda: torch.use_deterministic_algorithms(True),
)
_state(
    "state of torch",
    "TF32 in matrix products (float32 matmul precision) was off when this was compiled and is on",
    "set it once, before the first call",
    lambda: torch.set_float32_matmul_precision("high"),
)


@again("inference mode", "torch.inference_mode() was entered or left", "every call inside of it, or every call outside")
def inference_mode(compiling: Any) -> Any:
    """With gradients off in both calls: else the grad mode is told."""
    run, x = compiling(double), ones()
    with torch.no_grad():
        run(x)
    with torch.inference_mode():
        run(x)
    return run


@follows(inference_mode)
def inference_mode_same(compiling: Any) -> None:
    run, x = compiling(double), ones()
    for _ in range(2):
        with torch.inference_mode():
            run(x)


@again("default device", "the default device was another when this was compiled", "set_default_device() once")
def default_device(compiling: Any) -> Any:
    run, x = compiling(double), ones()
    for device in ("cpu", "meta"):
        torch.set_default_device(device)
        run(x)
    return run


@follows(default_device)
def default_device_set_once(compiling: Any) -> None:
    torch.set_default_device("cpu")
    run, x = compiling(double), ones()
    run(x)
    run(x)


def _packing() -> Any:
    """Hooks that torch guards on: those that it can compile."""
    to, back = (torch.fx.symbolic_trace(lambda x, dtype=dtype: x.to(dtype)) for dtype in (torch.float64, torch.float32))
    return to, back


@again("saved tensor hooks", "other hooks on saved tensors were on", "saved_tensors_hooks")
def saved_hooks(compiling: Any) -> Any:
    run, hooks = compiling(torch.sin), _packing()
    run(ones(requires_grad=True))
    with torch.autograd.graph.saved_tensors_hooks(*hooks):
        run(ones(requires_grad=True))
    return run


@follows(saved_hooks)
def saved_hooks_same(compiling: Any) -> None:
    run, hooks = compiling(torch.sin), _packing()
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(*hooks):
            run(ones(requires_grad=True))


@again("function mode", "(found DeviceContext)", "`with torch.device(...)` block is one")
def function_mode(compiling: Any) -> Any:
    run = compiling(double)
    run(ones())
    with torch.device("cpu"):
        run(ones())
    return run


@follows(function_mode)
def function_mode_same(compiling: Any) -> None:
    run = compiling(double)
    for _ in range(2):
        with torch.device("cpu"):
            run(ones())


# -- modules -----------------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.calls = 0
        self.scale = 1.5
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Counting(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x) + self.calls


class CountingInABuffer(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.layer(x) + self.seen


@again(
    "integer of a module", "self.calls was 0 when this was compiled and is 1", "allow_unspec_int_on_nn_module = True"
)
def counter(compiling: Any) -> Any:
    run = compiling(Counting())
    for _ in range(3):
        run(ones(2, 4))
    return run


@follows(counter)
def counter_in_a_buffer(compiling: Any) -> None:
    run = compiling(CountingInABuffer())
    for _ in range(3):
        run(ones(2, 4))


@follows(counter, versions=2)
def counter_as_a_symbol(compiling: Any) -> None:
    """The second version takes every number."""
    with torch._dynamo.config.patch(allow_unspec_int_on_nn_module=True):
        run = compiling(Counting())
        for _ in range(8):
            run(ones(2, 4))


class Switched(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return torch.relu(x) if self.training else x


@again(
    "training", "eval() was called: self.training was True when this was compiled and is False", "before the first call"
)
def training(compiling: Any) -> Any:
    net = Switched()
    run = compiling(net)
    run(ones(2, 4))
    net.eval()
    run(ones(2, 4))
    return run


@follows(training)
def training_left_alone(compiling: Any) -> None:
    run = compiling(Switched().eval())
    run(ones(2, 4))
    run(ones(2, 4))


@follows(training, versions=2)
def training_to_and_fro(compiling: Any) -> None:
    net = Switched()
    run = compiling(net)
    for mode in (True, False, True, False):
        run(ones(2, 4))
        net.train(mode)


class Adapted(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lora = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("first", "second")})
        self.active_adapter = "first"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.lora[self.active_adapter](x)


@again("adapter", "self.active_adapter was 'first' when this was compiled and is 'second'", "hotswap_adapter")
def adapter(compiling: Any) -> Any:
    net = Adapted()
    run = compiling(net)
    run(ones(2, 4))
    net.active_adapter = "second"
    run(ones(2, 4))
    return run


@follows(adapter)
def adapter_copied_over(compiling: Any) -> None:
    net = Adapted()
    run = compiling(net)
    run(ones(2, 4))
    net.lora["first"].load_state_dict(net.lora["second"].state_dict())
    run(ones(2, 4))


@follows(adapter, versions=2)
def adapter_of_each_a_version(compiling: Any) -> None:
    net = Adapted()
    run = compiling(net)
    for name in ("first", "second") * 3:
        net.active_adapter = name
        run(ones(2, 4))


@again("hooks", "hooks have come or gone since this was compiled", "before the first call")
def hook(compiling: Any) -> Any:
    net = torch.nn.Linear(4, 4)
    with unified_guards.installed(strict=True):
        run = compiling(lambda x: net(x) + 1)
        run(ones(2, 4))
        net.register_forward_hook(lambda module, args, output: output * 2)
        run(ones(2, 4))
    return run


@follows(hook)
def hook_first(compiling: Any) -> None:
    net = torch.nn.Linear(4, 4)
    net.register_forward_hook(lambda module, args, output: output * 2)
    with unified_guards.installed(strict=True):
        run = compiling(lambda x: net(x) + 1)
        run(ones(2, 4))
        run(ones(2, 4))


# -- functions, globals, objects ---------------------------------------------------------------------------------------


def apply(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return function(x)


@again(
    "function made anew",
    "k, which function has captured, was 2 when this was compiled and is 3",
    "make the function once",
)
def closure(compiling: Any) -> Any:
    def scaled_by(k: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: x * k

    run = compiling(apply)
    for k in (2, 3):
        run(scaled_by(k), ones())
    return run


@follows(closure)
def closure_made_once(compiling: Any) -> None:
    run = compiling(lambda scale, x: apply(lambda y: y * scale, x))
    for k in (2, 3):
        run(torch.tensor(k), ones())


@again("function made anew", "function is a function that was made anew", "make the function once")
def lambda_made_anew(compiling: Any) -> Any:
    run = compiling(apply)
    run(lambda x: x + 1, ones())
    run(lambda x: x + 1, ones())
    return run


@follows(lambda_made_anew)
def lambda_made_once(compiling: Any) -> None:
    run, function = compiling(apply), lambda x: x + 1
    run(function, ones())
    run(function, ones())


@again("function made anew", "function.keywords['other'] was 1 when this was compiled and is 2", "numbers as tensors")
def partial(compiling: Any) -> Any:
    run = compiling(apply)
    for other in (1, 2):
        run(functools.partial(torch.add, other=other), ones())
    return run


@follows(partial)
def partial_of_tensors(compiling: Any) -> None:
    run = compiling(apply)
    for other in (1, 2):
        run(functools.partial(torch.add, other=torch.tensor(other)), ones())


HELPER: Callable[[torch.Tensor], torch.Tensor] = double
COUNT = 3


def with_helper(x: torch.Tensor) -> torch.Tensor:
    return HELPER(x)


def with_count(x: torch.Tensor) -> torch.Tensor:
    return x * COUNT


@again("global", "the global HELPER was bound to something else", "bind it once, before the first call")
def rebound_function(compiling: Any) -> Any:
    global HELPER
    run = compiling(with_helper)
    try:
        run(ones())
        HELPER = torch.neg
        run(ones())
    finally:
        HELPER = double
    return run


@follows(rebound_function)
def function_as_an_argument(compiling: Any) -> None:
    run = compiling(apply)
    run(double, ones())
    run(double, ones())


@again("global", "the global COUNT was 3 when this was compiled and is 4", "pass what changes as an argument")
def rebound_number(compiling: Any) -> Any:
    global COUNT
    run = compiling(with_count)
    try:
        run(ones())
        COUNT = 4
        run(ones())
    finally:
        COUNT = 3
    return run


@follows(rebound_number)
def number_as_an_argument(compiling: Any) -> None:
    run = compiling(lambda x, count: x * count)
    for count in (3, 4):
        run(ones(), torch.tensor(count))


class Config:
    """Of which nothing that is written about it may run any of this."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def __repr__(self) -> str:
        raise AssertionError("advice runs no code of the user's")

    __str__ = __len__ = __format__ = __repr__  # type: ignore[assignment]


class Other(Config):
    """Another class."""


@again("object replaced", "kind is another object: kind was tests.advice.cases.Config", "keep the object")
def replaced(compiling: Any) -> Any:
    run = compiling(lambda x, kind: x * 2 if kind is Config else x * 3)
    run(ones(), Config)
    run(ones(), Other)
    return run


@follows(replaced)
def object_kept(compiling: Any) -> None:
    run = compiling(lambda x, kind: x * 2 if kind is Config else x * 3)
    run(ones(), Config)
    run(ones() * 2, Config)


@again("attribute", "config has an attribute extra now", "in __init__")
def attribute(compiling: Any) -> Any:
    config = Config(a=1)
    run = compiling(lambda x, config: x + 1 if hasattr(config, "extra") else x * 2)
    run(ones(), config)
    vars(config)["extra"] = 1
    run(ones(), config)
    return run


@follows(attribute)
def attribute_at_once(compiling: Any) -> None:
    config = Config(a=1, extra=None)
    run = compiling(lambda x, config: x + 1 if config.extra is not None else x * 2)
    run(ones(), config)
    vars(config)["other"] = 1
    run(ones(), config)


@again("type", "options was dict when this was compiled and is a Config", "pass one type each time")
def type_of_an_argument(compiling: Any) -> Any:
    run = compiling(lambda x, options: x * 2 if isinstance(options, dict) else x * 3)
    run(ones(), {})
    run(ones(), Config())
    return run


@follows(type_of_an_argument)
def type_same(compiling: Any) -> None:
    run = compiling(lambda x, options: x * 2 if isinstance(options, dict) else x * 3)
    run(ones(), {})
    run(ones(), {})


# -- plain values ------------------------------------------------------------------------------------------------------


def step(x: torch.Tensor, lr: Any) -> torch.Tensor:
    return x - lr * x


@again("float", "lr was 0.1 when this was compiled and is 0.05", "pass it as a tensor")
def learning_rate(compiling: Any) -> Any:
    run = compiling(step)
    for lr in (0.1, 0.05, 0.025):
        run(ones(), lr)
    return run


@follows(learning_rate)
def learning_rate_as_a_tensor(compiling: Any) -> None:
    run = compiling(step)
    for lr in (0.1, 0.05, 0.025):
        run(ones(), torch.tensor(lr))


@again("integer", "lr was 3 when this was compiled and is 4", "pass it as a tensor")
def integer(compiling: Any) -> Any:
    run = compiling(step)
    for lr in (3, 4, 5):
        run(ones(), lr)
    return run


@follows(integer)
def integer_as_a_tensor(compiling: Any) -> None:
    run = compiling(step)
    for lr in (3, 4, 5):
        run(ones(), torch.tensor(lr))


@again("type of a number", "lr was 3 when this was compiled and is 0.5", "float(value) each time")
def number_type(compiling: Any) -> Any:
    run = compiling(step)
    run(ones(), 3)
    run(ones(), 0.5)
    return run


@follows(number_type, versions=2)
def number_type_same(compiling: Any) -> None:
    run = compiling(step)
    for lr in (3, 0.5, 7, 0.25):
        run(ones(), float(lr))


def total(items: Any) -> torch.Tensor:
    return sum(item.sum() for item in items)  # type: ignore[return-value]


@again("length", "items had 1 items when this was compiled and has 2", "torch.stack(items)")
def list_grew(compiling: Any) -> Any:
    run = compiling(total)
    for count in (1, 2, 3):
        run([ones() for _ in range(count)])
    return run


@follows(list_grew)
def list_padded(compiling: Any) -> None:
    run = compiling(total)
    for count in (1, 2, 3):
        run([ones() if at < count else torch.zeros(3) for at in range(3)])


@follows(list_grew)
def list_stacked(compiling: Any) -> None:
    run = compiling(lambda items: items.sum(), dynamic=True)
    for count in (2, 3, 4):
        run(torch.stack([ones() for _ in range(count)]))


@again("length", "items had 2 items when this was compiled and has 3", "pass one length")
def tuple_is_longer(compiling: Any) -> Any:
    run = compiling(total)
    for count in (2, 3):
        run(tuple(ones() for _ in range(count)))
    return run


@follows(tuple_is_longer)
def tuple_padded(compiling: Any) -> None:
    run = compiling(total)
    for count in (2, 3):
        run(tuple(ones() if at < count else torch.zeros(3) for at in range(3)))


def total_of_values(items: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(item.sum() for item in items.values())  # type: ignore[return-value]


def _stepping(compiling: Any, steps: int, before: Callable[[torch.optim.Optimizer], Any]) -> Any:
    """A compiled step of an optimizer that makes its state in the first one."""
    parameter = torch.nn.Parameter(ones())
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = ones()
    before(optimizer)
    run = compiling(optimizer.step)
    for _ in range(steps):
        run()
    return run


@again(
    "optimizer state", "the optimizer made its state in its first step: list(self.state", "nothing, for it happens once"
)
def first_step(compiling: Any) -> Any:
    return _stepping(compiling, 2, lambda _: None)


@follows(first_step, versions=2)
def first_step_left_alone(compiling: Any) -> None:
    _stepping(compiling, 5, lambda _: None)


@follows(first_step)
def first_step_uncompiled(compiling: Any) -> None:
    _stepping(compiling, 5, lambda optimizer: optimizer.step())


@again("keys", "items had 1 keys when this was compiled and has 2 keys: 'a', 'b'", "all its keys before the first call")
def key_added(compiling: Any) -> Any:
    run, items = compiling(total_of_values), {"a": ones()}
    run(items)
    items["b"] = ones()
    run(items)
    return run


@follows(key_added)
def keys_from_the_beginning(compiling: Any) -> None:
    run, items = compiling(total_of_values), {"a": ones(), "b": torch.zeros(3)}
    run(items)
    items["b"] = ones()
    run(items)


@again("keys", "list(items)[0] was 'a' when this was compiled and is 'b'", "in one order")
def key_renamed(compiling: Any) -> Any:
    run = compiling(total_of_values)
    run({"a": ones()})
    run({"b": ones()})
    return run


@follows(key_renamed)
def key_kept(compiling: Any) -> None:
    run = compiling(total_of_values)
    run({"a": ones()})
    run({"a": ones() * 2})


@again("flag", "negate was False when this was compiled and is True", "a flag compiles twice")
def flag(compiling: Any) -> Any:
    run = compiling(lambda x, negate: -x if negate else x * 2)
    run(ones(), False)
    run(ones(), True)
    return run


@follows(flag, versions=2)
def flag_to_and_fro(compiling: Any) -> None:
    run = compiling(lambda x, negate: -x if negate else x * 2)
    for negate in (False, True, False, True):
        run(ones(), negate)


@follows(flag)
def flag_as_a_tensor(compiling: Any) -> None:
    run = compiling(lambda x, negate: torch.where(negate, -x, x * 2))
    for negate in (False, True):
        run(ones(), torch.tensor(negate))


@again("flag", "mode was 'sum' when this was compiled and is 'mean'", "set it before the first call")
def option(compiling: Any) -> Any:
    run = compiling(lambda x, mode: x.sum() if mode == "sum" else x.mean())
    run(ones(), "sum")
    run(ones(), "mean")
    return run


@follows(option)
def option_set_once(compiling: Any) -> None:
    run = compiling(lambda x, mode: x.sum() if mode == "sum" else x.mean())
    run(ones(), "sum")
    run(ones() * 2, "sum")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@again("flag", "colour was Colour.RED when this was compiled and is Colour.BLUE", "set it before the first call")
def member_of_an_enum(compiling: Any) -> Any:
    run = compiling(lambda x, colour: x * 2 if colour is Colour.RED else x * 3)
    run(ones(), Colour.RED)
    run(ones(), Colour.BLUE)
    return run


@follows(member_of_an_enum, versions=2)
def members_have_a_version_each(compiling: Any) -> None:
    run = compiling(lambda x, colour: x * 2 if colour is Colour.RED else x * 3)
    for colour in (Colour.RED, Colour.BLUE) * 2:
        run(ones(), colour)
