"""Programs that several processes run together. Results are compared with those of modules that are not compiled.

python -m tests.distributed.programs NAME RANK SIZE FILE
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import unified_guards

WIDTH, STEPS = 8, 5
PROGRAMS: dict[str, Callable[[], None]] = {}


class Graphs:
    """A backend that counts what it compiles."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.count += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


graphs = Graphs()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Breaking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Block(), Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        return self.second(x)


def blocks(count: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(count)))


def program(function: Callable[[], None]) -> Callable[[], None]:
    PROGRAMS[function.__name__] = function
    return function


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _compare(compiled: Callable[..., torch.Tensor], trained: nn.Module, plain: nn.Module) -> list[int]:
    """Trains both on the same inputs; how many graphs there were after each step."""
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.001) for model in (trained, plain)]
    counts = []
    for step in range(STEPS):
        x = torch.full((4, WIDTH), 0.1 * (step + 1))
        results = []
        for call, optimizer in zip((compiled, plain), optimizers, strict=True):
            optimizer.zero_grad()
            result = call(x)
            result.square().sum().backward()
            optimizer.step()
            results.append(_whole(result.detach()))
        torch.testing.assert_close(*results)
        for one, two in zip(trained.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(_whole(one.detach()), _whole(two.detach()))
        counts.append(graphs.count)
    return counts


def _settles(counts: list[int]) -> None:
    assert counts[0] > 0, counts
    assert counts[-1] == counts[2], f"compiled again and again: {counts}"


def _tensor_parallel(model: nn.Sequential, mesh: DeviceMesh) -> nn.Module:
    plan = {}
    for at in range(len(model)):
        plan |= {f"{at}.up": ColwiseParallel(), f"{at}.down": RowwiseParallel()}
    return parallelize_module(model, mesh, plan)


def _sharded(model: nn.Sequential, mesh: DeviceMesh) -> nn.Module:
    for block in model:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@program
def tensor_parallel() -> None:
    """Layers that are split over the processes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    trained, plain = (_tensor_parallel(blocks(), mesh) for _ in range(2))
    _settles(_compare(torch.compile(trained, backend=graphs), trained, plain))


@program
def fsdp_layers() -> None:
    """FSDP2 around layers that are compiled one by one."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    trained, plain = blocks(), _sharded(blocks(), mesh)
    for block in trained:
        block.compile(backend=graphs)
    _settles(_compare(_sharded(trained, mesh), trained, plain))


@program
def fsdp_whole() -> None:
    """One compiled model around what FSDP2 shards."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    trained, plain = (_sharded(blocks(), mesh) for _ in range(2))
    _settles(_compare(torch.compile(trained, backend=graphs), trained, plain))


@program
def fsdp_and_tensor_parallel() -> None:
    """Both, on a mesh of two dimensions."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    trained, plain = (_tensor_parallel(blocks(2), mesh["tensor"]) for _ in range(2))
    for block in trained:
        block.compile(backend=graphs)
    trained, plain = _sharded(trained, mesh["data"]), _sharded(plain, mesh["data"])
    _settles(_compare(trained, trained, plain))


@program
def ddp_with_graph_breaks() -> None:
    """DDP around a module in the middle of which the graph ends."""
    torch.manual_seed(0)
    model = Breaking()
    trained, plain = DistributedDataParallel(model), DistributedDataParallel(copy.deepcopy(model))
    _settles(_compare(torch.compile(trained, backend=graphs), trained, plain))


def _loss(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (result - target).square().sum()


@program
def pipeline_stages() -> None:
    """A compiled stage in each process, that the others send to and receive from."""
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    rank, size = dist.get_rank(), dist.get_world_size()
    losses = []
    for compiles in (True, False):
        module = blocks(size)[rank]
        if compiles:
            module.compile(backend=graphs)
        stage = PipelineStage(module, rank, size, torch.device("cpu"))
        schedule = ScheduleGPipe(
            stage, n_microbatches=2, loss_fn=lambda result, target: (result - target).square().sum()
        )
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        found = []
        for step in range(STEPS):
            optimizer.zero_grad()
            given = (torch.full((4, WIDTH), 0.1 * (step + 1)),) if rank == 0 else ()
            parts: list[torch.Tensor] = []
            last = {"target": torch.ones(4, WIDTH), "losses": parts} if rank == size - 1 else {}
            schedule.step(*given, **last)
            optimizer.step()
            found.append([loss.detach() for loss in parts] + [value.detach().clone() for value in module.parameters()])
        losses.append(found)
    torch.testing.assert_close(*losses)
    assert graphs.count > 0


@program
def guard_collectives() -> None:
    """A shape that differs on one process makes all of them compile."""
    torch.compiler.set_enable_guard_collectives(True)
    model = blocks(1)
    compiled = torch.compile(model, backend=graphs, dynamic=False)
    counts = []
    for step in range(4):
        rows = 4 + (step == 2 and dist.get_rank() == 1)
        x = torch.ones(rows, WIDTH)
        torch.testing.assert_close(compiled(x), model(x))
        counts.append(graphs.count)
    torch.compiler.set_enable_guard_collectives(False)
    assert counts[1] == 1 < counts[2] == counts[3], counts


def _count(name: str) -> int:
    """How many graphs a run of the program compiles."""
    torch._dynamo.reset()
    graphs.count = 0
    PROGRAMS[name]()
    return graphs.count


def main() -> None:
    """Runs one program with torch's guards and with unified ones, and prints what was compiled and checked."""
    name, rank, size, file = sys.argv[1:]
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=int(rank), world_size=int(size))
    counts = [_count(name)]
    unified_guards.install()
    counts.append(_count(name))
    stats = unified_guards.stats()
    told = {
        "graphs": counts,
        "left": stats.frames_left_to_torch,
        "lifted": stats.frames_lifted,
        "checks": stats.checks,
        "callbacks": stats.python_callbacks,
        "compared": stats.compared,
        "disagreements": stats.disagreements,
    }
    print(json.dumps(told), flush=True)
    with contextlib.suppress(RuntimeError):  # another process may have ended already
        dist.barrier()
    os._exit(0)  # a thread of gloo's may let go of a tensor when the interpreter has ended


if __name__ == "__main__":
    main()
