"""A model over many devices: FSDP2 and hybrid sharding, tensor and sequence parallel by DTensor plans, recomputation.

Everything here surrounds a model that knows nothing of it. Weights, gradients and moments then exist in parts: what the
optimizer and the loop see are the local ones, as plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from foretell.model.decoder import Block
from foretell.model.multimodal import Multimodal
from foretell.sections import ParallelConfig
from foretell.train.distributed import Group, patience
from foretell.train.layout import Layout

_COLUMNS = ("qkv", "gate_up")  # matrices whose results are split over `tensor`, head by head
_ROWS = ("attention_out", "down")  # matrices that read such results


def recompute(model: Multimodal, mode: str) -> None:
    """Let each layer compute again in the backward pass what it would hold: ParallelConfig.checkpoint.

    Sources: Chen et al. 2016 (arXiv 1604.06174); selective: Korthikanti et al. 2022 (arXiv 2205.05198).
    """
    more: dict[str, Any] = {}
    if mode == "selective":
        more["context_fn"] = partial(create_selective_checkpoint_contexts, _keep)
    for layer in _layers(model) if mode != "none" else ():
        again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False, **more)
        layer.forward = again


def _keep(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    products = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
    return CheckpointPolicy.MUST_SAVE if operation in products else CheckpointPolicy.PREFER_RECOMPUTE


def _layers(model: Multimodal) -> list[nn.Module]:
    return [*model.decoder.blocks, *(model.vision.blocks if model.vision is not None else ())]


class Sharded:
    """A model whose parameters lie in parts on the processes of a layout.

    local: by name, this process's part of each trained parameter, in the order of the model's; gradients are put beside
    them by `finish`. A part is a run of rows of a parameter, of its `tensor` part where it has one. device: where parts
    lie; those of a model on the meta device are zero, to be filled.
    """

    def __init__(
        self, model: Multimodal, place: Layout, config: ParallelConfig, precision: str, device: torch.device
    ) -> None:
        self.model, self.place, self.config, self.device = model, place, config, device
        self._tower = False
        named = dict(model.named_parameters())
        self.shapes = {name: parameter.shape for name, parameter in named.items()}
        self._homes = {name: _home(model, name) for name in named}
        sizes, names = tuple(place.sizes.values()), tuple(place.sizes)
        self._mesh = init_device_mesh(device.type, sizes, mesh_dim_names=names)
        self._world = init_device_mesh(device.type, (place.readers * place.tensor,))
        for name in names:
            _set_pg_timeout(patience(), self._mesh.get_group(name))
        self._axis: dict[str, int] = {}  # along which a parameter is split over `tensor`
        self._order: dict[str, Tensor] = {}  # of the rows of one whose parts are split each by itself
        if place.tensor > 1:
            self._split_products()
        self._shard(precision)
        if model.device.type == "meta":
            self._allocate()
        self._parameters = {name: _parameter(*home) for name, home in self._homes.items()}
        parts: dict[str, Tensor] = {
            name: parameter._local_tensor.detach() for name, parameter in self._parameters.items()
        }
        self.local = {name: part for name, part in parts.items() if self._parameters[name].requires_grad}
        self._frozen = {name: part for name, part in parts.items() if name not in self.local}
        # Gains of heads or positions that a process has seen alone.
        summed = ("q_norm", "k_norm", *(("attention_norm", "mlp_norm") if config.sequence else ()))
        self._partial = [
            part
            for name, part in self.local.items()
            if place.tensor > 1 and name.startswith("decoder.blocks.") and name.endswith(summed)
        ]

    def _shard(self, precision: str) -> None:
        model, never = self.model, self.config.reshard == "never"
        data = self._mesh["replicate", "shard"] if self.place.replicate > 1 else self._mesh["shard"]
        # Layers use their matrices in the compute type alone; embedding, head and norms are float32 as on one process.
        low = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        policy = low if precision == "bfloat16" else MixedPrecisionPolicy()
        for layer in _layers(model):
            fully_shard(layer, mesh=data, reshard_after_forward=not never, mp_policy=policy)
        if model.vision is not None:
            fully_shard(model.vision, mesh=data, reshard_after_forward=not never)
        plain = model.hidden

        def hidden(
            tokens: Tensor, positions: Tensor | None = None, segments: Tensor | None = None, tiles: Tensor | None = None
        ) -> Tensor:
            vision = model.config.vision
            if tiles is None and self._tower and vision is not None:
                tiles = torch.empty(0, vision.tile, vision.tile, 3, dtype=torch.uint8, device=tokens.device)
            return plain(tokens, positions, segments, tiles)

        model.hidden = hidden  # type: ignore[method-assign]
        # The head is read after the forward pass, by the loss; so what is not in a layer stays gathered until then.
        fully_shard(model, mesh=data, reshard_after_forward=False)
        register_fsdp_forward_method(model, "hidden")
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the loss is divided by the weight of the whole step already
                module.set_force_sum_reduction_for_comms(True)

    def _allocate(self) -> None:
        """Give parameters without memory their parts, and let FSDP take those on."""
        for home in self._homes.values():
            module, attribute = _place(*home)
            old: Any = module._parameters[attribute]
            part = torch.zeros(old._local_tensor.shape, device=self.device)
            new = DTensor(part, old._spec, requires_grad=False)  # type: ignore[no-untyped-call]
            module._parameters[attribute] = nn.Parameter(new, requires_grad=old.requires_grad)
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.device)
            if isinstance(module, FSDPModule):
                module.unshard()  # it pads parts where they are uneven, which moves them
                module.reshard()

    @torch.no_grad()
    def fill(self, values: Iterable[tuple[str, Tensor]]) -> None:
        """Give parameters the values of whole tensors, of which each process takes its part."""
        for name, full in values:
            self._part(name).copy_(self.cut(name, full))

    def _part(self, name: str) -> Tensor:
        return self.local[name] if name in self.local else self._frozen[name]

    def _split_products(self) -> None:
        """Megatron's plan (arXiv 1909.08053) for each layer, and that of sequence parallelism (arXiv 2205.05198)."""
        model, t = self.model, self.place.tensor
        shape = model.config
        sizes = {
            "qkv": [shape.heads * shape.head_dim, *[shape.n_kv_heads * shape.head_dim] * 2],
            "gate_up": [shape.ffn_width] * 2,
        }
        order = {name: _by_part(rows, t) for name, rows in sizes.items()}
        between: Placement = Shard(1) if self.config.sequence else Replicate()
        plan: dict[str, ParallelStyle] = {name: ColwiseParallel(input_layouts=between) for name in _COLUMNS}
        plan |= {name: RowwiseParallel(output_layouts=between) for name in _ROWS}
        mesh = self._mesh["tensor"]
        for number, block in enumerate(model.decoder.layers):
            for name in (*_COLUMNS, *_ROWS):
                full = f"decoder.blocks.{number}.{name}"
                self._axis[full] = 0 if name in _COLUMNS else 1
                self._order |= {full: order[name]} if name in order else {}
                if name == "qkv" and block.qkv_bias is not None:
                    self._axis[f"{full}_bias"], self._order[f"{full}_bias"] = 0, order[name]
                _as_linear(block, name, order.get(name))
            parallelize_module(block, mesh, plan, src_data_rank=None)
            block.heads, block.kv_heads = block.heads // t, block.kv_heads // t
            block.register_forward_pre_hook(_fewer_heads)
        if self.config.sequence:
            layers = model.decoder.layers
            layers[0].register_forward_pre_hook(partial(_scatter, mesh))
            layers[-1].register_forward_hook(partial(_gather, mesh))

    def begin(self, last: bool, images: bool) -> None:
        """Before each micro-batch. last: of the step, after which gradients travel. images: whether any process has
        met one in this step, so that all take part in gathering the image tower."""
        self._tower = images
        self.model.set_requires_gradient_sync(last or self.config.reshard == "always")  # type: ignore[operator]
        if self.config.reshard == "never":
            self.model.set_reshard_after_backward(last)  # type: ignore[operator]

    @torch.no_grad()
    def finish(self, loss: Tensor, group: Group) -> tuple[float, float]:
        """After the last micro-batch: the loss summed over the processes, and the norm of the whole gradient.

        loss: of this process's rows. Gradients are beside `local` from here on.
        """
        self._tower = False
        for name, part in self.local.items():
            parameter = self._parameters[name]
            part.grad = None if parameter.grad is None else parameter.grad._local_tensor
            parameter.grad = None
        partial_sums = [part.grad for part in self._partial if part.grad is not None]
        if partial_sums:
            flat = torch.cat([grad.flatten() for grad in partial_sums])
            dist.all_reduce(flat, group=self._mesh.get_group("tensor"))
            for grad, total in zip(partial_sums, torch.split(flat, [g.numel() for g in partial_sums]), strict=True):
                grad.copy_(total.view_as(grad))
        square = torch.zeros((), dtype=torch.float64, device=loss.device)
        for name, part in self.local.items():
            if part.grad is not None:
                # A part that several processes hold counts once.
                held = self.place.replicate * (1 if name in self._axis else self.place.tensor)
                square += torch.linalg.vector_norm(part.grad, dtype=torch.float32).double().square() / held
        mine = torch.stack([loss.double() / self.place.tensor, square]).tolist()
        total_loss, total_square = group.add(*mine)
        return total_loss, total_square**0.5

    def cut(self, name: str, full: Tensor) -> Tensor:
        """This process's part of a tensor that is laid out as a parameter."""
        if name in self._order:
            full = full[self._order[name].to(full.device)]
        if name in self._axis:
            full = full.chunk(self.place.tensor, self._axis[name])[self.place.tensor_rank]
        parts = full.chunk(self.place.shard)
        return parts[self.place.shard_rank] if self.place.shard_rank < len(parts) else full[:0]

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The tensor of which `cut` gave each process its part; all call this alike."""
        shape, axis = list(self.shapes[name]), self._axis.get(name)
        if axis is not None:
            shape[axis] //= self.place.tensor
        full = _distributed(part, self._mesh["shard"], [Shard(0)], shape).full_tensor()
        if axis is not None:
            full = _distributed(full, self._mesh["tensor"], [Shard(axis)], list(self.shapes[name])).full_tensor()
        return full[torch.argsort(self._order[name]).to(full.device)] if name in self._order else full

    def piece(self, name: str, part: Tensor) -> DTensor:
        """A part as what torch.distributed.checkpoint writes of the whole tensor, whose rows are in the model's order.

        Where that is not theirs here they are gathered, and each process takes other ones; all call this alike.
        """
        shape = list(self.shapes[name])
        if name in self._order:
            parts = self.whole(name, part).chunk(self._world.size())
            own = parts[self.place.rank] if self.place.rank < len(parts) else parts[0][:0]
            return _distributed(own.clone(), self._world, [Shard(0)], shape)
        if name in self._axis:
            return _distributed(part, self._mesh["shard", "tensor"], [Shard(0), Shard(self._axis[name])], shape)
        return _distributed(part, self._mesh["shard"], [Shard(0)], shape)

    def empty_piece(self, name: str, dtype: torch.dtype) -> DTensor:
        """What `part` takes, to be read into."""
        shape = list(self.shapes[name])
        if name in self._order:
            rows = shape[0]
            each = -(-rows // self._world.size())
            count = max(0, min(each, rows - each * self.place.rank))
            own = torch.empty(count, *shape[1:], dtype=dtype, device=self.device)
            return _distributed(own, self._world, [Shard(0)], shape)
        return self.piece(name, torch.empty_like(self._part(name), dtype=dtype))

    def part(self, name: str, piece: DTensor) -> Tensor:
        """The part that `piece` was made of."""
        return self.cut(name, piece.full_tensor()) if name in self._order else piece._local_tensor

    @torch.no_grad()
    def gather(self, keep: bool) -> None:
        """Take the model apart no more: where `keep`, it has whole parameters on the CPU again; elsewhere none."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        for name, part in {**self.local, **self._frozen}.items():
            full = self.whole(name, part)
            module, attribute = self._homes[name]
            if isinstance(module, Block):
                module.__dict__.pop("product", None)
                module._modules.pop(attribute, None)
            held = full.cpu() if keep else full[:0]
            module._parameters[attribute] = nn.Parameter(held, requires_grad=False)


def _distributed(part: Tensor, mesh: DeviceMesh, placements: list[Placement], shape: list[int]) -> DTensor:
    strides = [*accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1)][::-1]
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=torch.Size(shape), stride=tuple(strides))


def _home(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    room, _, attribute = name.rpartition(".")
    return model.get_submodule(room), attribute


def _place(module: nn.Module, attribute: str) -> tuple[nn.Module, str]:
    """Where a parameter is now: in a block's linear module, if that has taken its place."""
    linear = module._modules.get(attribute.removesuffix("_bias"))
    if isinstance(linear, nn.Linear):
        return linear, "bias" if attribute.endswith("_bias") else "weight"
    return module, attribute


def _parameter(module: nn.Module, attribute: str) -> Any:
    place, name = _place(module, attribute)
    return place._parameters[name]


def _as_linear(block: Block, name: str, order: Tensor | None) -> None:
    """Put a matrix into the kind of module that DTensor's styles split, its rows in the given order."""
    weight, bias = block._parameters.pop(name), block._parameters.get(f"{name}_bias")
    assert weight is not None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    for own, old in (("weight", weight), ("bias", bias)):
        if old is not None:
            data = old.detach() if order is None else old.detach()[order.to(old.device)]
            setattr(linear, own, nn.Parameter(data, requires_grad=old.requires_grad))
    if bias is not None:
        block._parameters[f"{name}_bias"] = None
    block.add_module(name, linear)
    block.product = partial(_product, block)  # type: ignore[method-assign]


def _product(block: Block, name: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = block._modules[name](x)  # type: ignore[misc]
    return found


def _by_part(sizes: list[int], parts: int) -> Tensor:
    """Order of rows that brings together what each of `parts` gets of every one of several stacked matrices."""
    rows = torch.split(torch.arange(sum(sizes)), sizes)
    return torch.cat([piece for part in range(parts) for piece in (r.chunk(parts)[part] for r in rows)])


def _fewer_heads(block: Block, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    x, cos, sin, *others = arguments
    count = block.heads + block.kv_heads
    return (x, cos[:, :, :count], sin[:, :, :count], *others)  # all heads have the same angles, or share one


def _scatter(mesh: DeviceMesh, block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    x, *others = arguments
    return _relaid(x, mesh, Replicate(), Shard(1)), *others


def _gather(mesh: DeviceMesh, block: nn.Module, arguments: tuple[Any, ...], x: Tensor) -> Tensor:
    return _relaid(x, mesh, Shard(1), Replicate()).clone()  # FSDP's hooks do not take a view


def _relaid(x: Tensor, mesh: DeviceMesh, before: Placement, after: Placement) -> Tensor:
    return DTensor.from_local(x, mesh, [before], run_check=False).redistribute(placements=[after]).to_local()
