"""How long an optimizer step takes on a described cluster: products, memory traffic, and what communication adds."""

from __future__ import annotations

from dataclasses import dataclass

from foretell.forecast.cluster import Cluster
from foretell.forecast.footprint import kept
from foretell.forecast.job import Job, Layout
from foretell.model.describe import describe

_REACHED = 0.8  # of a link's bandwidth by large collectives: an assumption
_SHARED = ("attention projections", "attention scores", "mlp")  # divided by tensor parallelism
_LAYERS = (*_SHARED, "vision blocks", "vision scores")  # what a checkpoint policy computes again
_REDUCED = 4  # bytes of a gradient on the wire: float32

PARTS = {
    "products": "matrix products",
    "attention": "attention",
    "traffic": "memory traffic",
    "update": "optimizer",
    "dispatch": "waiting for the host",
    "sharding": "weights and gradients exchanged",
    "tensor": "activations exchanged",
}
"""The parts of a `StepTime` in words."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step on one device. products, attention: matrix products. traffic: what is read and written beside
    them. update: the optimizer. dispatch: while the device waits for the host, whose kernels are short. sharding,
    tensor: communication that computing does not hide, of weights and gradients, and of activations."""

    products: float
    attention: float
    traffic: float
    update: float
    dispatch: float
    sharding: float
    tensor: float

    @property
    def compute(self) -> float:
        return self.products + self.attention + self.traffic + self.update + self.dispatch

    @property
    def total(self) -> float:
        return self.compute + self.sharding + self.tensor


def step_time(job: Job, layout: Layout, cluster: Cluster, precision: str) -> StepTime:
    """Seconds of an optimizer step, by formula.

    products: FLOPs over the rate of the cluster's curve, attention likewise; what a policy recomputes is counted.
    traffic: `passes` times the numbers that a layer and the logits keep, and for each micro-batch the weights read
    three times and their float32 gradient added to, over the memory's bandwidth: short micro-batches pay for that.
    update: 32 bytes a parameter held. dispatch: by how much the host's time for a layer's kernels exceeds all that.
    Weights are gathered and gradients summed while a layer computes; what takes longer than computing, and the first
    and last layer's, is added. Sums over `tensor` hide behind nothing.
    Sources: ring collectives, bytes · (n − 1)/n / bandwidth + hops · latency (Thakur et al. 2005); four sums a layer
    under tensor parallelism (Shoeybi et al., arXiv 1909.08053; Korthikanti et al., arXiv 2205.05198).
    """
    size, model, curve = 4 if precision == "float32" else 2, job.model, cluster.curve
    count, tokens = layout.micro_batches(job), job.batch_tokens / layout.ways
    rate = curve.rate(cluster.peak(precision), cluster.matmul)
    forward, backward = _parts(job, layout, rate, curve.attention)
    whole, _ = kept(job, layout)
    again = {"none": 0.0, "selective": 1 / 3, "full": 1 / 3}[layout.checkpoint]
    numbers = model.depth * whole * (1 + again) + model.vocab_size
    layers = model.depth * job.block / layout.tensor
    weights = (layers + job.rest) * (3 * size + 8) * count
    traffic = (curve.passes * size * numbers * tokens + weights) / cluster.bandwidth
    update = 32 * (layers + job.rest) / layout.shard / cluster.bandwidth
    products = tokens * (forward[0] + backward[0])
    attention = tokens * (forward[1] + backward[1])
    dispatch = max(0.0, count * model.depth * cluster.dispatch - products - attention - traffic)
    third = (products + attention + traffic + dispatch) / count / 3
    return StepTime(
        products,
        attention,
        traffic,
        update,
        dispatch,
        _sharding(job, layout, cluster, size, count, third),
        _tensor(job, layout, cluster, size, count),
    )


def _parts(
    job: Job, layout: Layout, products: float, attention: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds a token on a device, forward and backward, each of products and of attention."""
    found = [[0.0, 0.0], [0.0, 0.0]]
    for part in describe(job.model, job.data.context):
        times = job.data.tiles if part.per == "tile" else job.data.learned if part.name.startswith("head") else 1.0
        scores = part.name.endswith("scores")
        shared = layout.tensor if part.name in _SHARED else 1
        rate = products * (attention if scores else 1.0) * shared
        # Selective keeps products with weights; those within attention are done again.
        again = part.name in _LAYERS and (layout.checkpoint == "full" or (scores and layout.checkpoint == "selective"))
        found[0][scores] += times * part.forward / rate
        found[1][scores] += times * (part.backward + part.forward * again) / rate
    return (found[0][0], found[0][1]), (found[1][0], found[1][1])


def _sharding(job: Job, layout: Layout, cluster: Cluster, size: int, count: int, third: float) -> float:
    """Seconds a step. third: of a micro-batch's computing, the forward pass's share; the backward pass takes two."""
    layers = job.model.depth
    blocks = layers * job.block / layout.tensor
    grown = _REDUCED * (blocks + job.rest)
    near = min(layout.shard, max(1, cluster.node // layout.tensor))
    apart = min(layout.replicate, max(1, cluster.node // (layout.tensor * layout.shard)))
    summed = 2 * gather(grown / layout.shard, layout.replicate, apart, cluster)
    if layout.shard == 1:
        return summed  # plain data parallelism sums once the backward pass is done
    fetch = gather(size * blocks + 4 * job.rest, layout.shard, near, cluster, layers)
    reduce = gather(grown, layout.shard, near, cluster, layers)
    again = 0.0 if layout.reshard == "never" else fetch
    fetches = 1 if layout.reshard == "never" else count
    sums = count if layout.reshard == "always" else 1
    before = fetches * (max(0.0, fetch - third) + fetch / layers)
    between = (count - 1) * max(0.0, again + (reduce if sums > 1 else 0.0) - 2 * third)
    return before + between + max(0.0, again + reduce + summed - 2 * third) + sums * reduce / layers


def _tensor(job: Job, layout: Layout, cluster: Cluster, size: int, count: int) -> float:
    if layout.tensor == 1:
        return 0.0
    passed = size * layout.rows * job.length * job.model.width
    sums = 4 + 2 * (layout.checkpoint == "full")
    one = 2 * gather(passed, layout.tensor, min(layout.tensor, cluster.node), cluster)
    return count * job.model.depth * sums * one


def gather(count: float, members: int, near: int, cluster: Cluster, times: int = 1) -> float:
    """Seconds until each of `members` has all of `count` bytes, of which it had its part; a sum that leaves each its
    part takes as long, one that leaves each the whole takes twice as long.

    near: members in a node. Rings run through every member's own port, so that a node sends with all of them.
    times: in how many pieces the bytes go, each with the latency of its hops.
    """
    if members == 1:
        return 0.0
    far = -(-members // near) - 1
    bandwidth = cluster.intra.bandwidth if far == 0 else min(cluster.intra.bandwidth, near * cluster.inter.bandwidth)
    hops = (near - 1) * cluster.intra.latency + far * cluster.inter.latency
    return count * (members - 1) / members / (_REACHED * bandwidth) + times * hops
