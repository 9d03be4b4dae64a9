"""Clusters a run could train on: what a device does, how devices are joined, what they cost and how often they fail."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from foretell.errors import ForecastError
from foretell.recipes import check_section, read_yaml
from foretell.sections import Above, Positive, Section

BUILT_IN = Path(__file__).with_name("clusters.yaml")
_REFERENCE = 312e12


class Link(Section):
    """bandwidth: bytes/s each way that a device has. latency: seconds of a hop."""

    bandwidth: Above
    latency: Annotated[float, Field(ge=0)] = 0.0


class Curve(Section):
    """Which part of a device's rates training reaches; every other time follows by counting.

    products: matrix products over the device's best ones (`matmul` times its peak), before what memory traffic costs.
    slope: that share falls with the peak, as (peak / 312 TFLOP/s)^−slope; an A100's is 312. attention: the products
    within attention over the other ones. passes: how often each number that a layer keeps goes through memory in a
    step; by default once written and once read, since published runs fit any number up to that. range: factors of a
    planned time between which eight of ten real ones lie.
    The other defaults were fitted to published runs (benchmarks/plan_published.py); a measured cluster has its own.
    """

    products: Above = 0.674
    slope: float = 0.212
    attention: Above = 0.498
    passes: Above = 2.0
    range: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1)]] = (0.80, 1.94)

    def rate(self, flops: float, matmul: float) -> float:
        """FLOP/s of products on a device with this peak."""
        share = self.products * math.exp(-self.slope * math.log(flops / _REFERENCE))
        return flops * matmul * min(1.0, share)


class Cluster(Section):
    """Devices and their network. Rates in FLOP/s and bytes/s, memory in bytes.

    flops: peak by precision, of dense products. matmul: share of it that the best products reach. memory, bandwidth: of
    a device. node: devices that `intra` joins; nodes: how many, joined by `inter`. process: what a device holds without
    a model. power: watts of a device at full load, with its share of the host where that is known; pue: what the
    building draws over that. price: of a device and hour. mtbf_hours: between two failures of one device; None: no
    failures. dispatch: seconds that the host needs to start the kernels of a layer, forward and backward; assumed are
    100 of 6 µs. restart_minutes: from a failure to training again. storage: bytes/s that a node writes a checkpoint
    with. efficiency: measured of this cluster, in place of the curve that published runs gave.
    """

    device: str
    flops: Annotated[dict[str, Above], Field(min_length=1)]
    matmul: Annotated[float, Field(gt=0, le=1)] = 1.0
    memory: Above
    bandwidth: Above
    node: Positive = 1
    nodes: Positive = 1
    intra: Link = Link(bandwidth=1e15)
    inter: Link = Link(bandwidth=1e15)
    kind: Annotated[str, Field(pattern="^(cpu|cuda)$")] = "cuda"
    process: Annotated[float, Field(ge=0)] = 2e9
    dispatch: Annotated[float, Field(ge=0)] = 6e-4
    power: Above | None = None
    pue: Annotated[float, Field(ge=1)] = 1.1
    price: Above | None = None
    mtbf_hours: Above | None = None
    restart_minutes: Above = 10.0
    storage: Above = 2e9
    efficiency: Curve | None = None
    source: str = ""

    @property
    def devices(self) -> int:
        return self.node * self.nodes

    def sized(self, devices: int) -> Cluster:
        """The same with so many devices: a part of a node, or whole nodes. Raises ForecastError for neither."""
        if devices <= self.node:
            return self.model_copy(update={"node": devices, "nodes": 1})
        if devices % self.node:
            raise ForecastError(
                f"{devices} devices are no whole number of nodes of {self.node}; take a multiple of {self.node}."
            )
        return self.model_copy(update={"nodes": devices // self.node})

    def peak(self, precision: str) -> float:
        """FLOP/s of a device by its data sheet. Raises ForecastError for a precision that is not described."""
        if precision not in self.flops:
            raise ForecastError(
                f"{self.device} has no rate for {precision}; described are {', '.join(self.flops)}. Name one of them "
                "with --precision, or, if the device multiplies it, add its rate to `flops` in a file of the cluster."
            )
        return self.flops[precision]

    @property
    def mixed(self) -> str:
        """What mixed precision multiplies in: bfloat16, float16 where the device has no bfloat16, else its fastest."""
        halves = [name for name in ("bfloat16", "float16") if name in self.flops]
        return halves[0] if halves else max(self.flops, key=lambda name: self.flops[name])

    @property
    def curve(self) -> Curve:
        return self.efficiency or Curve()


class _Described(Cluster):
    """A cluster as a file describes it. like: a built-in one whose fields it takes over, which is done before."""

    like: None = None


def built_in() -> list[str]:
    """Names of the clusters that come with the package."""
    return list(_described())


def load_cluster(named: str) -> Cluster:
    """A cluster by file, or by a built-in name with a number of devices, such as h100x64.

    A file is YAML with the fields of `Cluster`; `like` names a built-in one whose fields it takes over.
    Raises ForecastError for a name that is not known; RecipeError for a file that does not describe one.
    """
    known, path = _described(), Path(named)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            raw = read_yaml(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ForecastError(f"{path} could not be read ({error}). Name a YAML file of a cluster.") from error
        if not isinstance(raw, dict):
            raise ForecastError(f"{path} is no cluster; expected are fields such as device, flops and memory.")
        return _cluster(raw, str(path), known)
    kind, count = named, None
    if (match := re.fullmatch(r"(.+)x(\d+)", named)) and named not in known:
        kind, count = match[1], int(match[2])
    if count == 0:
        raise ForecastError(f"{named!r} is a cluster without devices. Name how many, such as {kind}x8.")
    if kind not in known:
        raise ForecastError(
            f"No cluster is called {named!r}. Built in are {', '.join(known)}, each with a number of devices, such as "
            "h100x64; or give a YAML file."
        )
    found = _cluster({"like": kind}, kind, known)
    return found if count is None else found.sized(count)


def _described() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_yaml(BUILT_IN.read_text(encoding="utf-8"), BUILT_IN.name)
    return found


def _cluster(raw: dict[str, Any], where: str, known: dict[str, dict[str, Any]]) -> Cluster:
    while (like := raw.get("like")) is not None:
        if not isinstance(like, str) or like not in known:
            raise ForecastError(f"{where}: like is {like!r}; built in are {', '.join(known)}.")
        raw = known[like] | {key: value for key, value in raw.items() if key != "like"}
    return check_section(_Described, raw, where)
