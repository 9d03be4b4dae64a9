"""Planted faults: does the watch catch them before 30 % of a run, and does it leave sound runs alone?

A small ladder on a generated source of known entropy, its forecast and band; then whole sound runs of a target four
times the largest rung, and the beginnings of runs that each have one fault. `--develop` takes what the watch was built
on, over the same ladder: other seeds, and faults of another size. The judged faults were fixed before any was run. A
first set of nine was judged before the watch looked at learning rate and batch; it caught four.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common import RESULTS, figure, write_result
from foretell.data.audited import Audited, write_pack, write_tokenizer
from foretell.files import sha256_file, write_json, write_text
from foretell.forecast import fit
from foretell.forecast.curves import curves_of
from foretell.forecast.ladder import data_shape, run_ladder
from foretell.forecast.rungs import flops, lay
from foretell.forecast.schedules import Point, Schedules
from foretell.forecast.watch import Alarm, Band, watch
from foretell.measure.fanout import fan_out
from foretell.pages import Html, Series, line_chart, page, section, table
from foretell.pages import figure as figure_of
from foretell.recipe import Recipe
from foretell.recipes import check_recipe

EARLY = 0.3  # share of the run by which a fault must have been seen
SOURCE = Audited(keys=1 << 18, exponent=1.0, symbols=16, length=5)
RECORDS = 4  # of a row
SPAN = SOURCE.places + 1  # tokens of a record, with the one before it
TOKENS, HELDOUT_ROWS = 1_185_408, 8_000
RECIPE: dict[str, Any] = {
    "name": "watch",
    "description": "Records of Zipf-distributed keys and their values; rows by foretell.data.audited.",
    "data": {
        "sources": [{"kind": "folder", "name": "audited", "path": "train", "license": "generated"}],
        "sequence_length": RECORDS * SPAN,
        "max_epochs": 1.0,
    },
    "tokenizer": {"vocab_size": SOURCE.vocab_size},
    "model": {
        "width": 72,
        "depth": 1,
        "ffn": 288,
        "head_dim": 16,
        "q_heads": 1,
        "max_length": RECORDS * SPAN,
        "base_width": 32,
        "base_depth": 1,
        "logit_multiplier": 3.0,
        "zero_init_outputs": False,
    },
    "train": {
        "tokens": TOKENS,
        "batch_tokens": 1512,
        "precision": "float32",
        "device": "cpu",
        "eval_every": 0.0,
        "log_every": 3,
        "checkpoint_minutes": 1000,
        "watch": "off",
        "optimizer": {"lr": 1e-2, "tau": 0.0},
    },
    # As many steps and the same rate on every rung: what is learned first then stands at the same share of each.
    "forecast": {
        "widths": [16, 20, 24, 28, 32, 40, 48],
        "seeds": [6, 5, 5, 5, 4, 4, 3],
        "batch_exponent": 1.0,
        "horizon_exponent": 0.5,
        "unit": "nats per token",
        "floor": SOURCE.floor,
    },
}

LADDER_SEED = 500
Rows = npt.NDArray[Any]


Spoil = Callable[[Rows, np.random.Generator], Rows]
WITHIN = np.arange(RECORDS * SPAN) % SPAN > 0  # places of a row that belong to a record
FIRST = int(SOURCE.records().min())


@dataclass(frozen=True)
class Fault:
    """recipe: settings that differ. spoil: takes tokens (rows, T) and a generator, returns tokens. part: of the pack's
    rows, which the run reads over and over."""

    kind: str
    recipe: Mapping[str, Any] | None = None
    spoil: Spoil | None = None
    part: float = 1.0


def noise(share: float) -> Spoil:
    """Random tokens in a stretch of rows, as a shard that was overwritten has."""

    def spoil(tokens: Rows, rng: np.random.Generator) -> Rows:
        count = round(share * len(tokens))
        start = int(rng.integers(len(tokens) - count))
        tokens[start : start + count, WITHIN] = rng.integers(FIRST, SOURCE.vocab_size, (count, WITHIN.sum()))
        return tokens

    return spoil


def scramble(share: float) -> Spoil:
    """Rows here and there whose tokens stand in random order: no target follows from what is before it."""

    def spoil(tokens: Rows, rng: np.random.Generator) -> Rows:
        chosen = np.ix_(rng.random(len(tokens)) < share, WITHIN)
        tokens[chosen] = rng.permuted(tokens[chosen], axis=1)
        return tokens

    return spoil


def recode(share: float) -> Spoil:
    """Rows here and there that were encoded by another tokenizer: the same symbols under other ids."""

    def spoil(tokens: Rows, rng: np.random.Generator) -> Rows:
        ids = np.arange(SOURCE.vocab_size)
        ids[FIRST:] = rng.permutation(ids[FIRST:])
        chosen = rng.random(len(tokens)) < share
        tokens[chosen] = ids[tokens[chosen]]
        return tokens

    return spoil


JUDGED = (
    Fault("learning rate halved", {"optimizer": {"lr": 5e-3, "tau": 0.0}}),
    Fault("learning rate × 2.5", {"optimizer": {"lr": 2.5e-2, "tau": 0.0}}),
    Fault("constant rate instead of a linear fall", {"schedule": "wsd"}),
    Fault("warm-up of 15 % instead of 2 %", {"warmup": 0.15}),
    Fault("a twelfth of the pack is random tokens", spoil=noise(1 / 12)),
    Fault("a sixth of the rows has its tokens in random order", spoil=scramble(1 / 6)),
    Fault("a sixth of the rows comes from another tokenizer", spoil=recode(1 / 6)),
    Fault("a thirtieth of the pack, thirty times", part=1 / 30),
    Fault("twice the batch at the same rate", {"batch_tokens": 3024}),
)
DEVELOPED = (
    Fault("learning rate × 0.6", {"optimizer": {"lr": 6e-3, "tau": 0.0}}),
    Fault("learning rate × 2", {"optimizer": {"lr": 2e-2, "tau": 0.0}}),
    Fault("cosine instead of a linear fall", {"schedule": "cosine"}),
    Fault("warm-up of 10 % instead of 2 %", {"warmup": 0.1}),
    Fault("a thirtieth of the pack is random tokens", spoil=noise(1 / 30)),
    Fault("a tenth of the rows has its tokens in random order", spoil=scramble(0.1)),
    Fault("a tenth of the rows comes from another tokenizer", spoil=recode(0.1)),
    Fault("a tenth of the pack, ten times", part=0.1),
    Fault("half of the batch at the same rate", {"batch_tokens": 756}),
)


@dataclass(frozen=True)
class Run:
    """A target run to be made. until: share of it after which enough is known."""

    name: str
    recipe: Recipe
    data: Path
    pack: Path
    out: Path
    fault: str = ""
    until: float = 1.0


Curves = tuple[list[Point], Schedules]
Found = tuple[Run, list[Point], list[Alarm]]


class _Enough(Exception):
    pass


def train(run: Run) -> Curves:
    """The curves of a run, made unless they lie there."""
    from foretell.errors import TrainingError
    from foretell.train.loop import pretrain

    done = run.out / "curve.json"
    if not done.exists():
        shutil.rmtree(run.out, ignore_errors=True)

        def observe(share: float, line: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
            if share > run.until < 1:
                raise _Enough
            return ()

        with suppress(_Enough, TrainingError):  # a run that diverges has a curve, too
            pretrain(run.recipe, run.pack, None, run.data / "tokenizer", run.out, observe=observe)
        write_json(done, curves_of(run.out / "log.jsonl"))
    points, schedules = json.loads(done.read_text())
    return points, schedules


def spoiled(data: Path, fault: Fault, out: Path, seed: int) -> Path:
    """A training pack that has the fault; its index agrees with it, as if it had been packed so."""
    if out.exists():
        return out
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(data / "train", part)
    index = json.loads((part / "index.json").read_text())
    rng = np.random.default_rng(seed)
    for number, rows in enumerate(index["shards"]):
        folder = part / f"shard-{number:05d}"
        again = np.arange(rows) % max(1, round(fault.part * rows))
        for name in ("tokens", "loss", "segments", "kinds"):
            array = np.load(folder / f"{name}.npy")[again]
            if name == "tokens" and fault.spoil is not None:
                array = fault.spoil(array, rng)
            np.save(folder / f"{name}.npy", array)
            index["files"][f"{folder.name}/{name}.npy"] = sha256_file(folder / f"{name}.npy")
    write_json(part / "index.json", index)
    part.rename(out)
    return out


def prepare(folder: Path) -> Path:
    """Tokenizer and packs, made unless they lie there. Returns their folder."""
    if not (folder / "train").exists():
        write_tokenizer(SOURCE, folder / "tokenizer")
        write_pack(SOURCE, folder / "heldout", rows=HELDOUT_ROWS, records=RECORDS, draw=0, even=True)
        write_pack(SOURCE, folder / "train", rows=TOKENS // (RECORDS * SPAN), records=RECORDS, draw=1)
    return folder


def runs(
    folder: Path, recipe: Recipe, faults: Iterable[Fault], sound: Iterable[int], seeds: Iterable[int]
) -> list[Run]:
    """Sound runs, whole; and of each fault the beginnings of runs of several seeds."""
    data = prepare(folder / "data")
    base = Run("", recipe, data, data / "train", folder)
    made = [
        replace(base, name=f"sound-{s}", recipe=recipe.model_copy(update={"seed": s}), out=folder / f"sound-{s}")
        for s in sound
    ]
    for number, fault in enumerate(faults):
        pack = base.pack
        if fault.spoil is not None or fault.part < 1:
            pack = spoiled(data, fault, folder / f"pack-{recipe.seed}-{number}", recipe.seed + number)
        raw = recipe.model_dump(mode="json")
        changed = dict(fault.recipe or {})
        raw["train"]["optimizer"] |= changed.pop("optimizer", {})
        raw["train"] |= changed
        if "batch_tokens" in changed:
            raw["train"]["log_every"] = round(
                recipe.train.log_every * recipe.train.batch_tokens / changed["batch_tokens"]
            )
        for seed in seeds:
            name = f"fault-{recipe.seed}-{number}-{seed}"
            wrong = check_recipe(raw | {"seed": seed}, name)
            made.append(Run(name, wrong, data, pack, folder / name, fault.kind, EARLY + 0.02))
    return made


def band_of(folder: Path, recipe: Recipe, workers: int | None) -> Band:
    """The band of the recipe's run from its ladder, trained unless it lies there."""
    data = prepare(folder / "data")
    assert recipe.forecast is not None
    shape = data_shape(data / "train")
    table = run_ladder(
        lay(recipe, shape), data / "train", data / "heldout", data / "tokenizer",
        folder / "ladder", config=recipe.forecast, workers=workers,
    )  # fmt: skip
    target = flops(recipe, shape)
    return watch(table, fit(table, floor=SOURCE.floor), target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--develop", action="store_true", help="the runs that the watch was built on; writes no result")
    parser.add_argument("--folder", type=Path, help="keep the runs here and go on from those that lie there")
    parser.add_argument("--workers", type=int, help="processes; default one a core")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="foretell-bench-") as temporary:
        folder: Path = options.folder or Path(temporary)
        recipe = check_recipe(RECIPE | {"seed": LADDER_SEED}, "watch")
        band = band_of(folder, recipe, options.workers)
        judged = (JUDGED, range(20, 23), range(25, 26))
        chosen = (DEVELOPED, range(500, 503), range(503, 504)) if options.develop else judged
        asked = runs(folder, recipe.model_copy(update={"seed": chosen[1][0]}), *chosen)
        curves = {asked[i].name: curve for i, curve in fan_out(train, asked, workers=options.workers)}
    found = [(run, curves[run.name][0], band.check(*curves[run.name])) for run in asked]
    for run, _, alarms in found:
        print(f"{run.fault or 'sound'} (seed {run.recipe.seed}): {said(alarms)}")
    kinds = list(dict.fromkeys(run.fault for run in asked if run.fault))
    caught = [kind for kind in kinds if all(early(alarms) for run, _, alarms in found if run.fault == kind)]
    false = sum(bool(alarms) for run, _, alarms in found if not run.fault)
    print(f"{len(caught)} of {len(kinds)} kinds caught; alarms in {false} of {len(chosen[1])} sound runs")
    if not options.develop:
        figures = {
            "kinds_caught": figure(len(caught), "kinds", math.ceil(0.8 * len(kinds))),
            "kinds_planted": figure(len(kinds), "kinds"),
            "false_alarms": figure(false, "runs", 0),
            "sound_runs": figure(len(chosen[1]), "runs"),
        }
        print(write_result("watch", "make bench-watch", figures))
        write_text(RESULTS / "watch.html", shown(band, found))


def early(alarms: Sequence[Alarm]) -> bool:
    return bool(alarms) and alarms[0].share < EARLY + 1e-9


def said(alarms: Sequence[Alarm]) -> str:
    return f"{alarms[0].share:.0%}: {alarms[0].text}" if alarms else "no alarm"


def shown(band: Band, found: Sequence[Found]) -> str:
    """The figure beside the result: every run over the band, and what was said of it."""

    def chart(chosen: Sequence[Found], title: str) -> Html:
        low, high = (
            [100 * (v / m - 1) for v, m in zip(bound, band.centre, strict=True)] for bound in (band.low, band.high)
        )
        names = Counter(run.fault or "sound" for run, *_ in chosen)
        first = {name: next(run.name for run, *_ in chosen if (run.fault or "sound") == name) for name in names}
        lines = [Series("band", band.shares, [0.0] * len(low), "line", 5, low, high)]
        for run, curve, _ in chosen:
            off = [100 * (v / m - 1) for v, m in zip(band.means(curve), band.centre, strict=True)]
            name = run.fault or "sound"
            label = name if first[name] == run.name else ""
            lines.append(Series(label, band.shares, off, "line" if label else "faint", list(names).index(name)))
        return figure_of(
            line_chart(
                lines, title=title, x_label="share of the run", y_label="% of the expected loss", keys_above=True
            ),
            f"{title}. Training loss against the expected curve.",
        )

    sound = [each for each in found if not each[0].fault]
    faulty = [each for each in found if each[0].fault]
    rows = [
        [
            run.fault or "sound",
            run.recipe.seed,
            said(alarms),
            "caught" if early(alarms) else "missed" if run.fault else "",
        ]
        for run, _, alarms in found
    ]
    return page(
        "Planted faults",
        [
            section("What was said", table(["Run", "Seed", "First alarm", ""], rows, align="lrll")),
            section(
                "Curves",
                chart(sound, "Sound runs"),
                *(chart(faulty[i : i + 6], f"Faults {i // 6 + 1}") for i in range(0, len(faulty), 6)),
            ),
        ],
        kicker="make bench-watch",
        lead=f"A kind counts as caught when every run of it raised an alarm before {EARLY:.0%} of it; sound runs are "
        "watched to their end.",
    )


if __name__ == "__main__":
    main()
