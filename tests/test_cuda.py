"""Guards on CUDA tensors: the same decisions, from metadata alone. `make gpu-check` runs these on a CUDA machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import unified_guards

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def lifted(request: pytest.FixtureRequest) -> Iterator[None]:
    before = unified_guards.stats()
    with unified_guards.installed():
        yield
    after = unified_guards.stats()
    assert after.frames_lifted > before.frames_lifted or getattr(request.node, "skipped_inside", False)
    assert after.frames_left_to_torch == before.frames_left_to_torch


class Watched:
    """A compiled function that counts its compiles and whose results are compared with eager's."""

    def __init__(self, function: Callable[..., torch.Tensor], **options: Any) -> None:
        self.function = function
        self.compiles = 0
        self.compiled = torch.compile(function, backend=self._backend, **{"dynamic": False, **options})

    def _backend(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        self.compiles += 1
        return graph.forward

    def __call__(self, *arguments: Any) -> torch.Tensor:
        got, want = self.compiled(*arguments), self.function(*arguments)
        assert got.device == want.device
        torch.testing.assert_close(got, want)
        return got


def test_device_change() -> None:
    run = Watched(lambda x: x * 2 + 1)
    for expected, device in [(1, "cuda"), (1, "cuda"), (2, "cpu"), (2, "cuda"), (2, "cpu")]:
        run(torch.ones(4, device=device))
        assert run.compiles == expected, device


def test_device_index() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    run = Watched(lambda x: x * 2)
    for expected, index in [(1, 0), (1, 0), (2, 1), (2, 0), (2, 1)]:
        with torch.cuda.device(index):
            run(torch.ones(4, device="cuda"))
        assert run.compiles == expected, index


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype(dtype: torch.dtype) -> None:
    run = Watched(lambda x: x + 1)
    run(torch.ones(4, device="cuda"))
    run(torch.ones(4, device="cuda", dtype=dtype))
    assert run.compiles == 2
    run(torch.ones(4, device="cuda"))
    run(torch.ones(4, device="cuda", dtype=dtype))
    assert run.compiles == 2


def test_sizes_and_strides() -> None:
    run = Watched(lambda x: x.sum(0))
    x = torch.randn(4, 6, device="cuda")
    changes = [(1, x), (2, x.t()), (3, x[:, ::2]), (4, x[:2]), (4, x), (4, x.clone())]
    for expected, argument in changes:
        run(argument)
        assert run.compiles == expected, (argument.shape, argument.stride())


def test_dynamic_sizes() -> None:
    run = Watched(lambda x: x * 2, dynamic=True)
    for size in (4, 5, 6, 100):
        run(torch.ones(size, device="cuda"))
    assert run.compiles == 1


def test_requires_grad() -> None:
    run = Watched(lambda x: x * 2)
    for expected, flag in [(1, False), (2, True), (2, False), (2, True)]:
        run(torch.ones(4, device="cuda", requires_grad=flag))
        assert run.compiles == expected, flag


def test_module_moves_between_devices() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).cuda()
    run = Watched(model)
    x = torch.ones(3, 8)
    with torch.no_grad():
        for expected, device in [(1, "cuda"), (1, "cuda"), (2, "cpu"), (2, "cpu")]:
            model.to(device)
            run(x.to(device))
            assert run.compiles == expected, device


def test_training_step() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).cuda()
    run = Watched(lambda x: model(x).square().mean())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        run(torch.ones(4, 8, device="cuda")).backward()
        optimizer.step()
    assert run.compiles == 1


def test_parameter_moves_in_place() -> None:
    """The module and its parameters are the same objects: only the tensors' words tell."""
    model = nn.Linear(8, 2).cuda()
    run = Watched(model)
    x = torch.ones(3, 8)
    with torch.no_grad():
        for expected, device in [(1, "cuda"), (1, "cuda"), (1, "cuda"), (2, "cpu"), (2, "cuda"), (2, "cpu")]:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(device)
            run(x.to(device))
            assert run.compiles == expected, device


def test_optimizer_step() -> None:
    parameters = [nn.Parameter(torch.ones(4, device="cuda")) for _ in range(8)]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    for _ in range(3):
        step()
    before = unified_guards.stats()
    step()
    after = unified_guards.stats()
    assert (after.misses, after.hits > before.hits) == (before.misses, True)


def test_cuda_graphs() -> None:
    """What a graph replays is chosen by guards: a changed flag and another shape are noticed, and noticed again."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5)).cuda().eval()
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)
    with torch.no_grad():
        for rows, training in [(3, False), (3, False), (3, False), (5, False), (3, True), (5, False), (3, False)]:
            model.train(training)
            x = torch.randn(rows, 8, device="cuda")
            got = compiled(x).clone()
            if training:
                kept = got != 0
                torch.testing.assert_close(got[kept], 2 * model[:2](x)[kept])
            else:
                torch.testing.assert_close(got, model(x))


def test_self_test_of_doctor() -> None:
    from unified_guards.cli import selftest

    found = selftest.run("cuda:0")
    assert found.wrong == ()
    assert found.decisions > 0


def test_workload_of_the_benchmarks() -> None:
    import unified_guards.bench.workloads  # noqa: F401  (registers them)
    from unified_guards.bench.registry import WORKLOADS

    with torch.device("cuda"):
        work = WORKLOADS["mlp"]().waiting_for("cuda")
    assert work.step().device.type == "cuda"
    torch.testing.assert_close(work.step(), work.eager())


def test_autocast() -> None:
    run = Watched(lambda x, y: x @ y)
    x = torch.randn(8, 8, device="cuda")
    run(x, x)
    with torch.autocast("cuda", dtype=torch.float16):
        assert run(x, x).dtype == torch.float16
    assert run.compiles == 2
    run(x, x)
    assert run.compiles == 2


def test_checks_need_no_synchronisation() -> None:
    """With work in flight, torch raises at whatever waits for the device; so must nothing in a check."""
    compiled = torch.compile(lambda x, items: x * 2 + items["y"], backend="eager", dynamic=False)
    x, items = torch.ones(4, device="cuda"), {"y": torch.ones(4, device="cuda")}
    compiled(x, items)
    torch.cuda.synchronize()
    before = unified_guards.stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            compiled(x, items)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    after = unified_guards.stats()
    assert after.hits - before.hits == 3
    assert after.misses == before.misses


def test_check_does_not_wait_for_the_device() -> None:
    """A check is over while the device is still at work on the tensor that it looks at."""
    torch.cuda.synchronize()
    compiled = torch.compile(lambda x: x.view(-1), backend="eager", dynamic=False)
    x = torch.ones(4, device="cuda")
    compiled(x)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)
    x.add_(1)
    done.record()
    compiled(x)
    assert not done.query(), "the check waited"
    torch.cuda.synchronize()
