"""Runs of the toy on several gloo processes, forked from one that has imported everything: `spread.py TOY OUT`.

Four workers go through ROUNDS together; each round lists runs and how many workers share one.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore  # type: ignore[attr-defined]

from foretell.errors import ForetellError
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, ParallelConfig, Recipe
from foretell.train import loop, parallel, pieces, trainer
from foretell.train.distributed import Group
from foretell.train.layout import layout

WORKERS = 4
PATIENCE = timedelta(minutes=7)  # not one of torch's own
SHARD2 = {"shard": 2}
# name, workers, the recipe's block, the share of the run after which it is stopped, changes of the recipe
ROUNDS: list[list[tuple[str, int, dict[str, Any] | None, float | None, dict[str, Any]]]] = [
    [("fsdp", 2, SHARD2, None, {}), ("tensor", 2, {"tensor": 2, "sequence": True}, None, {})],
    [("same", 2, SHARD2, 0.5, {}), ("always", 2, {"reshard": "always", "checkpoint": "full"}, None, {})],
    [("same", 2, SHARD2, None, {}), ("never", 2, {"reshard": "never", "checkpoint": "selective"}, None, {})],
    [("hybrid", 4, {"replicate": 2, "shard": 2}, None, {})],
    [("moved", 4, {"shard": 2, "tensor": 2}, 0.25, {})],
    [("moved", 2, {"tensor": 2}, 0.5, {}), ("rewound", 2, SHARD2, None, {"watch": "rewind"})],
    [("moved", 1, None, 0.75, {}), ("heads", 3, {"tensor": 3}, None, {})],
    [("moved", 2, SHARD2, None, {}), ("low", 2, SHARD2, None, {"precision": "bfloat16"})],
    [("world", 2, {"shard": 4}, None, {}), ("full", 2, SHARD2, 0.25, {})],
]


def recipe(base: dict[str, Any], block: dict[str, Any] | None, changes: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({**base, "train": base["train"] | changes, "parallel": block})


def work(worker: int, toy: Path, out: Path, only: str) -> None:
    base = json.loads((out / "recipe.json").read_text())
    if only in ("", "memory") and worker < 3:
        memory(out, ("none", "selective", "full")[worker])
    if only in ("", "plans"):
        plans(worker % 2, worker < 2, out)
    for number, runs in enumerate(ROUNDS):
        first = 0
        for name, size, block, stop, changes in runs:
            if first <= worker < first + size and only in ("", name):
                chosen = recipe(base, block, changes)
                steps = chosen.train.tokens // chosen.train.batch_tokens
                at = None if stop is None else round(stop * steps)
                train(worker - first, size, toy, out, name, chosen, at, number)
            first += size


def train(
    rank: int, world: int, toy: Path, out: Path, name: str, chosen: Recipe, stop: int | None, number: int
) -> None:
    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if done == stop and rank == world - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    if name == "full":
        pieces.put_folder = full
    places = toy / "pack", toy / "heldout", toy / "tokenizer"
    told = out / f"{name}.{rank}.txt"
    with join(rank, world, out / f"store-{number}-{name}") as group:
        try:
            loop.pretrain(chosen, *places, out / name, report=report, group=group)
        except (KeyboardInterrupt, ForetellError) as error:
            told.write_text(f"{type(error).__name__}: {error}")


def full(temporary: Path, path: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def join(rank: int, world: int, place: Path) -> Group:
    store = FileStore(str(place), world)
    group = PrefixStore("group", store)
    dist.init_process_group("gloo", store=group, rank=rank, world_size=world, timeout=PATIENCE)
    return Group(rank, world, PrefixStore("shared", store))


def plans(rank: int, sequence: bool, out: Path) -> None:
    """Gradients of a model with all that imports may switch on, multiplied by two processes together, and by one."""
    config = ModelConfig(
        vocab_size=64, width=64, depth=2, head_dim=16, q_heads=4, kv_heads=2, max_length=64,
        qkv_bias=True, qk_norm=True, tie_embeddings=False, zero_init_outputs=False,
    )  # fmt: skip
    tokens = torch.randint(0, 64, (2, 64), generator=torch.Generator().manual_seed(0))
    alone, model = Multimodal(config).train(), Multimodal(config).train()
    expected = alone.hidden(tokens).square().mean()
    expected.backward()
    with join(rank, 2, out / f"store-plans-{sequence}") as group:
        block = ParallelConfig(tensor=2, sequence=sequence)
        sharded = parallel.Sharded(model, layout(block, group), block, "float32", model.device)
        groups = [sharded._mesh.get_group(name) for name in ("replicate", "shard", "tensor")]
        for some in (*groups, pieces.Saver(group, 1)._channel):
            assert some._get_backend(torch.device("cpu")).options._timeout == PATIENCE
        sharded.begin(last=True, images=False)
        loss = model.hidden(tokens).square().mean()
        loss.backward()
        total, norm = sharded.finish(loss.detach(), group)
        found = {name: sharded.whole(name, part.grad) for name, part in sharded.local.items() if part.grad is not None}
        low = Multimodal(config)
        parallel.Sharded(low, layout(block, group), block, "bfloat16", low.device)
        for module in (low, low.decoder.layers[0]):
            module.unshard()
        assert {p.dtype for p in low.decoder.layers[0].parameters()} == {torch.bfloat16}  # what travels
        assert low.decoder.embedding.dtype == torch.float32
    wanted = {name: p.grad for name, p in alone.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    length = torch.nn.utils.get_total_norm(wanted.values())
    torch.testing.assert_close(torch.tensor([total, norm]), torch.stack([expected.detach(), length]))


def memory(out: Path, mode: str) -> None:
    """The gradients of one step of a text model with long rows, and what its peak takes."""
    config = ModelConfig(vocab_size=64, width=64, depth=6, head_dim=16, max_length=2048)
    model = Multimodal(config).train()
    parallel.recompute(model, mode)
    tokens = torch.randint(0, 64, (1, 2048), generator=torch.Generator().manual_seed(0))
    segments = torch.arange(2048).div(128, rounding_mode="floor").expand(1, -1)
    model.hidden(tokens[:, :64], segments=segments[:, :64]).mean().backward()  # loads what a first step loads
    model.zero_grad()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.hidden(tokens, segments=segments).square().mean().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    torch.save({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, out / f"{mode}.grad")
    (out / f"{mode}.peak").write_text(str(peak))


def main(toy: Path, out: Path, only: str = "") -> None:
    torch.set_num_threads(1)
    loop.peak_rate = lambda *_: 1e11
    trainer.SNAPSHOT_EVERY = 5
    torch.load = pickle.load = None  # no file of a run is ever unpickled
    children = []
    for worker in range(WORKERS):
        if (child := os.fork()) == 0:
            failed = 1
            try:
                work(worker, toy, out, only)
                failed = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(failed)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
