"""`python -m benchmarks.workloads [names] [--json FILE]`: real programs on torch's guards and on unified ones.

Models have real depth and tiny widths: guards depend on the number of modules and tensors, not on the size of the
tensors. To add a workload, add one function with the `workload` decorator; those that a user's machine measures too are
in `unified_guards/bench/workloads.py`.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ROOT
from unified_guards.bench import runner
from unified_guards.bench.measure import print_sample
from unified_guards.bench.registry import WORKLOADS, Workload, names_for, workload
from unified_guards.bench.workloads import qwen3, qwen3_static, tokens

if TYPE_CHECKING:
    import torch

CHILD = runner.Child("benchmarks.workloads", ROOT)


def _decoder(model: Any, call: Callable[..., Any], prompt: int = 8, length: int = 256) -> Callable[[], torch.Tensor]:
    """One token a step. The prompt is read eagerly, as `generate` does, which also allocates the cache: compiling the
    first, allocating call would cost a second entry for the same code."""
    import torch
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=length)
    is_new = "cache" in inspect.signature(model.forward).parameters  # some transformers before 5.24 had another name
    given = {"cache" if is_new else "past_key_values": cache, "use_cache": True}
    with torch.no_grad():
        model(input_ids=tokens(prompt), **given)
    token, position = tokens(1), prompt

    def step() -> torch.Tensor:
        nonlocal position
        if position == length:
            position = prompt
            for layer in cache.layers:
                layer.cumulative_length.fill_(prompt)
        position += 1
        return call(input_ids=token, **given).logits

    return step


def _mlps(count: int) -> torch.nn.Sequential:
    import torch
    from torch import nn

    class Block(nn.Module):  # what Dynamo compiles on its own has to be a user's
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(count))).eval()


def _mesh_of_one() -> Any:
    """A mesh that is this process: guards are the same on each of many."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    return dist.init_device_mesh("cpu", (1,))


@workload("tensor_parallel_12")
def tensor_parallel_12() -> Workload:
    """Twelve layers whose weights are split: DTensors, with hooks that make and take them."""
    import torch
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {f"{at}.up": ColwiseParallel() for at in range(12)} | {f"{at}.down": RowwiseParallel() for at in range(12)}
    model, twin = (parallelize_module(_mlps(12), _mesh_of_one(), plan) for _ in range(2))
    compiled, x = torch.compile(model, backend="eager"), torch.randn(4, 32)
    return Workload(lambda: compiled(x), lambda: twin(x))


@workload("fsdp_12")
def fsdp_12() -> Workload:
    """Twelve layers that FSDP2 shards, compiled one by one."""
    import torch
    from torch.distributed.fsdp import fully_shard

    mesh, (model, twin) = _mesh_of_one(), (_mlps(12), _mlps(12))
    for layer in model:
        layer.compile(backend="eager")
    for part in (*model, *twin, model, twin):
        fully_shard(part, mesh=mesh)
    x = torch.randn(4, 32)
    return Workload(lambda: model(x), lambda: twin(x))


@workload("qwen3_36_decode")
def qwen3_36_decode() -> Workload:
    import torch

    model = qwen3()
    step = _decoder(model, torch.compile(model, backend="eager"))
    return Workload(step, _decoder(model, model), stateful=True)


@workload("bert_24_training")
def bert_24_training() -> Workload:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 32}
    depth = {"num_hidden_layers": 24, "num_attention_heads": 4}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForMaskedLM(BertConfig(**(sizes | depth | no_dropout))).train()
    twin, ids = copy.deepcopy(model), tokens(8)

    def training_step(owner: Any, call: Callable[..., Any]) -> Callable[[], Any]:
        parameters = list(owner.parameters())

        def step() -> Any:
            owner.zero_grad()
            loss = call(input_ids=ids, labels=ids).loss
            loss.backward()
            return loss.detach(), [parameter.grad for parameter in parameters]

        return step

    return Workload(
        training_step(model, torch.compile(model, backend="aot_eager")), training_step(twin, twin), grad=True
    )


@workload("qwen3_36_regional")
def qwen3_36_regional() -> Workload:
    model, twin, ids = qwen3(), qwen3(), tokens(8)
    for layer in model.model.layers:
        layer.compile(backend="eager")  # one entry serves all: torch does not tell the layers apart without a cache
    return Workload(
        lambda: model(input_ids=ids, use_cache=False).logits, lambda: twin(input_ids=ids, use_cache=False).logits
    )


@workload("dynamic_50")
def dynamic_50() -> Workload:
    import torch

    def related(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        results = []
        for left, right in zip(xs[::2], xs[1::2], strict=True):
            total = left + right  # the two lengths are equal
            results.append(total.view(-1, 2) if left.shape[0] > 3 and left.shape[0] % 2 == 0 else total * 2)
        return results

    def inputs(extra: int) -> list[torch.Tensor]:
        xs = [torch.randn(8 + 2 * (i // 2) + extra, 2) for i in range(50)]
        for x in xs:
            torch._dynamo.mark_dynamic(x, 0)
        return xs

    batches = [inputs(0), inputs(4)]
    compiled = torch.compile(related, backend="eager", dynamic=True)

    def alternating(call: Callable[..., Any]) -> Callable[[], Any]:
        turn = 0

        def step() -> Any:
            nonlocal turn
            turn ^= 1
            return call(batches[turn])

        return step

    return Workload(alternating(compiled), alternating(related), stateful=True)


@workload("entries_8")
def entries_8() -> Workload:
    import torch

    def scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y).sin() + x.shape[0]

    compiled = torch.compile(scale, backend="eager", dynamic=False)
    pairs = [(torch.randn(n, 4), torch.randn(n, 4)) for n in range(2, 10)]
    return Workload(lambda: [compiled(x, y) for x, y in pairs], lambda: [scale(x, y) for x, y in pairs])


@workload("qwen3_36_graphs", only_on="cuda")
def qwen3_36_graphs() -> Workload:
    """As one serves it: Inductor's kernels in CUDA graphs, which leave the CPU little to do but to check guards."""
    return qwen3_static(36, mode="reduce-overhead")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workloads", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"workloads, all by default: {', '.join(WORKLOADS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and the medians there")
    parser.add_argument("--rounds", type=int, default=3, help="child processes per workload and backend (default 3)")
    parser.add_argument("--steps", type=int, default=30, help="steps that each figure is the median of (default 30)")
    parser.add_argument("--device", default="cpu", help="where the tensors are, such as cuda:0 (default cpu)")
    parser.add_argument("--only", choices=("torch", "unified", "strict"), help="one backend alone")
    parser.add_argument("--no-memory", action="store_true", help="leave out the children that measure bytes held")
    parser.add_argument("--child", choices=("torch", "unified", "strict"), help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = names_for(options.device)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no workload called {', '.join(unknown)} on {options.device}; there are {', '.join(known)}")
    problem = None if options.child else _problem_with(options.device)
    if problem is not None:
        parser.error(f"--device {options.device}: {problem}")
    options.names = options.names or known
    return options


def _problem_with(device: str) -> str | None:
    """Why tensors cannot be made there, in torch's words; None when they can."""
    if device == "cpu":
        return None
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        return str(error).split("\n")[0]
    return None


def main() -> int:
    options = _arguments()
    if options.child:
        print_sample(options.names[0], options.child, steps=options.steps, memory=options.memory, device=options.device)
        return 0
    backends = [options.only] if options.only else ["torch", "unified"]
    child = dataclasses.replace(CHILD, options=(f"--device={options.device}",))
    samples, failed = runner.run(
        child, options.names, backends, rounds=options.rounds, steps=options.steps, memory=not options.no_memory
    )
    summary = runner.summarise(samples)
    print("\nMedians; pairs are torch / unified, a ratio says how many times torch's figure is the unified one.")
    print("In place: in the profiled model, the profiler's constant share of each lookup included, for both alike.")
    print("Hot and flushed: the live entries' checks on the locals they were built from, scaled to a step's lookups.\n")
    print(runner.table(summary), flush=True)
    if options.json:
        medians = {name: {b: side.as_dict() for b, side in sides.items()} for name, sides in summary.items()}
        content = {"environment": runner.environment(options.device), "medians": medians, "samples": samples}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    found = runner.problems(summary) + ([f"{failed} child processes failed"] if failed else [])
    for problem in found:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
