"""The search for a mixture: pack trial mixtures, train small rungs on each, fit their laws, try what they recommend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretell.errors import ForecastError
from foretell.files import digest, sha256_file, write_json
from foretell.forecast import mixture
from foretell.forecast.ladder import RESULT, RUNGS, data_shape, run_ladder
from foretell.forecast.rungs import SEED_STEP, RungPlan, flops, measured, params, with_vocabulary
from foretell.forecast.tune import rungs_below
from foretell.measure.fanout import Where
from foretell.pipeline.stages import run_recipe
from foretell.recipe import ForecastConfig, Recipe
from foretell.recipes import check_recipe
from foretell.run import Report, read_manifest, silent
from foretell.template import Template

if TYPE_CHECKING:
    from foretell.data.document import Document

FOLDER = "mixture"
HELDOUT = "heldout"


@dataclass(frozen=True)
class Found:
    """recipe: with the recommended weights. said, came: log of the aim's loss on the largest rung with the recipe's
    mixture over that with the recommended one, by its law and by two further runs of either, (mean, low, high) of the
    pairs; came is None where it was not tried. runs, flops: what it took."""

    recipe: Recipe
    trials: mixture.Trials
    recommended: mixture.Recommendation
    came: tuple[float, float, float] | None
    runs: int
    flops: float
    unit: str
    target: float


def search_mixture(
    recipe: Recipe,
    run_dir: Path,
    *,
    widths: Sequence[int] = (),
    trials: int | None = None,
    aim: Mapping[str, float] | None = None,
    check: int = 2,
    workers: int | None = None,
    on: Where = "local",
    report: Report = silent,
) -> Found:
    """Search the weights of a recipe's sources on rungs below it.

    Every trial is a mixture of its own, packed and trained on each rung; all are measured on the same held-out
    documents, source by source. widths: of the rungs. trials: how many; default three a source and two. aim: weight of
    every source's loss. check: seeds that the recipe's and the recommended mixture are trained with afresh on the
    largest rung. What is done is kept in run_dir/mixture, and the same call goes on.
    Raises ForecastError for an aim, widths or trials that cannot be; DataError and RunError of the stages before.
    """
    names = [source.name for source in recipe.data.sources]
    base = [source.weight for source in recipe.data.sources]
    design = mixture.design(base, trials or 3 * len(names) + 2, recipe.seed)
    if unknown := sorted(set(aim or {}) - set(names)):
        raise ForecastError(f"There is no source {unknown[0]!r}; the recipe has {', '.join(names)}.")
    run_recipe(recipe, run_dir, "tokenizer", report)
    bench = _Bench(recipe, run_dir, widths, workers, on, report)
    taken = [bench.run(f"trial-{i:03d}", shares, bench.rungs, seed=0) for i, shares in enumerate(design)]
    shares = np.stack([one[0] for one in taken])
    losses = np.stack([one[1] for one in taken], 1)  # (R, M, S)
    found = mixture.Trials(tuple(names), shares, losses, np.array([flops(rung, bench.shape) for rung in bench.rungs]))
    target = flops(bench.recipe, bench.shape)
    best = mixture.recommend(found, target, aim, bench.most())
    weight = np.array([(aim or dict(zip(names, shares[0], strict=True))).get(name, 0.0) for name in names])
    came = bench.compare(best.shares, weight / weight.sum(), check) if check else None
    raw = recipe.model_dump(mode="json")
    for source, share in zip(raw["data"]["sources"], best.shares, strict=True):
        source["weight"] = max(round(float(share), 4), 1e-4)
    mixed = check_recipe(raw, f"{recipe.name}, mixed")
    told = Found(mixed, found, best, came, bench.runs, bench.flops, bench.config.unit, target)
    write_json(run_dir / FOLDER / "mixture.json", _plain(told))
    return told


class _Bench:
    """Where trials are packed and trained. The held-out documents bear the name of their source as their kind."""

    def __init__(
        self, recipe: Recipe, run_dir: Path, widths: Sequence[int], workers: int | None, on: Where, report: Report
    ) -> None:
        from foretell.data.tokenizer import Tokenizer

        self.data, self.tokenizer, self.out = run_dir / "data", run_dir / "tokenizer", run_dir / FOLDER
        self._loaded = Tokenizer.load(self.tokenizer)
        self.recipe = with_vocabulary(recipe, self._loaded.vocab_size)
        self.config = (recipe.forecast or ForecastConfig()).model_copy(update={"kinds": ()})  # here a kind is a source
        self.rungs = rungs_below(self.recipe, widths)
        self.workers, self.on, self.report = workers, on, report
        self.runs, self.flops = 0, 0.0
        self.names = [source.name for source in recipe.data.sources]
        self.heldout = self._pack(HELDOUT, np.ones(len(self.names)), recipe.data.heldout_tokens, heldout=True)
        lacking = set(self.names) - set(self._index(self.heldout)["kinds"])
        if lacking:
            raise ForecastError(
                f"Source {min(lacking)!r} has no held-out documents, so no mixture can be judged by it. Raise its "
                "`heldout`, or leave it out."
            )
        self.tokens = max(rung.train.tokens for rung in self.rungs)
        own = np.array([source.weight for source in recipe.data.sources])
        self.shape = data_shape(self._pack("trial-000", own, self.tokens))

    def run(
        self, name: str, shares: mixture.Array, rungs: Sequence[Recipe], seed: int
    ) -> tuple[mixture.Array, mixture.Array]:
        """Train rungs on a mixture: its shares as they were packed, and losses (R, S)."""
        pack = self._pack(name, shares, self.tokens)
        by_source = self._index(pack)["by_source"]
        packed = np.array([by_source[source]["share"] for source in self.names])
        plans = [self._plan(rung, seed) for rung in rungs]
        run_ladder(
            plans, pack, self.heldout, self.tokenizer, self.out / name,
            config=self.config, workers=self.workers, on=self.on, report=self._told(name),
        )  # fmt: skip
        self.runs += len(plans)
        self.flops += sum(plan.flops for plan in plans)
        return packed, np.stack([self._losses(self.out / name / RUNGS / plan.name / RESULT) for plan in plans])

    def compare(self, after: mixture.Array, weight: mixture.Array, seeds: int) -> tuple[float, float, float]:
        """The gain on the largest rung in runs that no choice was made on: (mean, least, largest) of the seeds."""
        before = np.array([source.weight for source in self.recipe.data.sources])
        gains = []
        for seed in range(1, seeds + 1):
            losses = [
                self.run(f"{name}-{seed}", shares, self.rungs[-1:], seed)[1][0] @ weight
                for name, shares in (("before", before), ("after", after))
            ]
            gains.append(float(np.log(losses[0] / losses[1])))
        return float(np.mean(gains)), min(gains), max(gains)

    def most(self) -> dict[str, float]:
        """The largest share that each source can have in the recipe's own run, by how often it may be read."""
        manifest = read_manifest(self.data)
        assert manifest is not None, "run_stages finished it"
        counts = manifest["metrics"]["sources"]
        rate = self._tokens_a_byte()
        data = self.recipe.data
        return {
            name: min(1.0, data.max_epochs * counts[name]["train"]["bytes"] * rate[name] / data.tokens)
            for name in self.names
        }

    def _tokens_a_byte(self) -> dict[str, float]:
        """Of the held-out documents, image slots and tags included; a source's training documents are of their kind."""
        manifest, index = read_manifest(self.data), self._index(self.heldout)
        assert manifest is not None
        found = {}
        for name in self.names:
            read = index["by_source"][name]
            whole = manifest["metrics"]["sources"][name]["heldout"]
            share = min(1.0, read["documents"] / max(1, whole["documents"]))
            found[name] = read["tokens"] / max(1.0, whole["bytes"] * share)
        return found

    def _losses(self, result: Path) -> mixture.Array:
        metrics: dict[str, Any] = json.loads(result.read_bytes())["metrics"]
        if "error" in metrics:
            raise ForecastError(f"{result.parent} diverged ({metrics['error']}). Lower the recipe's learning rate.")
        return np.array(
            [measured(metrics, self.config.model_copy(update={"kinds": (source,)})) for source in self.names]
        )

    def _plan(self, rung: Recipe, seed: int) -> RungPlan:
        steps = rung.train.tokens // rung.train.batch_tokens
        quiet = {"eval_every": 0.0, "compile": False, "log_every": max(1, steps // 20)}
        name = f"w{rung.model.width:04d}-s{seed}"
        recipe = rung.model_copy(
            update={
                "name": name,
                "seed": (rung.seed + SEED_STEP * seed) % 2**31,
                "train": rung.train.model_copy(update=quiet),
            }
        )
        return RungPlan(name, recipe, flops(rung, self.shape), params(rung), rung.train.tokens, seed)

    def _pack(self, name: str, shares: mixture.Array, tokens: int, heldout: bool = False) -> Path:
        from foretell.data.pack import PackSource, pack

        out = self.out / name / "pack"
        weights = {source: round(float(w), 6) for source, w in zip(self.names, shares / shares.sum(), strict=True)}
        config = self.recipe.data
        key = digest(
            {"weights": weights, "tokens": tokens, "length": config.sequence_length, "epochs": config.max_epochs,
             "seed": self.recipe.seed, "tokenizer": sha256_file(self.tokenizer / "tokenizer.json"),
             "data": (read_manifest(self.data) or {}).get("output")}
        )  # fmt: skip
        told = out.parent / "pack.key"
        if told.is_file() and told.read_text() == key and (out / "index.json").is_file():
            return out
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        vision = self.recipe.model.vision
        template = Template(self._loaded, vision.tiling if vision else None)
        chosen = {n: PackSource(self._reader(n, heldout), w) for n, w in weights.items() if w}
        pack(
            chosen, template, self._loaded, out, config.sequence_length, tokens, 1.0 if heldout else config.max_epochs,
            self.recipe.seed, lambda done, total: self.report("mixture", done, total, f"packs {name}"),
        )  # fmt: skip
        told.write_text(key)
        return out

    def _reader(self, source: str, heldout: bool) -> Any:
        from foretell.data.parquet import read_documents
        from foretell.pipeline.documents import documents_file

        file = documents_file(self.data, source, "heldout" if heldout else "train")

        def documents() -> Iterator[Document]:
            for document in read_documents(file):
                yield replace(document, kind=source)

        return documents

    def _index(self, pack: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((pack / "index.json").read_bytes())
        return found

    def _told(self, name: str) -> Report:
        def tell(task: str, done: float, total: float | None = None, note: str = "") -> None:
            self.report("mixture", done, total, f"{name}: {note}" if note else name)

        return tell


def _plain(found: Found) -> dict[str, Any]:
    """Everything that was measured and said, as JSON data."""
    best = found.recommended
    return {
        "sources": list(best.sources), "unit": found.unit, "target_flops": found.target,
        "trials": {
            "shares": found.trials.shares.tolist(), "losses": found.trials.losses.tolist(),
            "flops": found.trials.flops.tolist(),
        },
        "before": best.before.tolist(), "after": best.shares.tolist(), "gain": asdict(best.gain),
        "rungs": [asdict(each) for each in best.rungs], "best": best.best.tolist(), "fit": best.fit,
        "limited": list(best.limited), "came": found.came, "runs": found.runs, "flops": found.flops,
    }  # fmt: skip
