"""TRL's PPO on a job of rlhf.py, by an interpreter that has TRL: python rlhf_peer.py JOB. Prints one line of JSON.

This file imports nothing of Foretell, so that its environment need not have it. trl 1.12.0 is the last release with
PPOTrainer (`trl.experimental.ppo`); later ones have RLOO and GRPO, which know no critic and so do other work.

A step of its trainer, as its source has it: `generate` of transformers answers all prompts of the step at once and
keeps the logits (those become log π_old); reference, critic and reward model each read prompt and reply once; rewards,
GAE and whitened advantages follow; then policy and critic are trained by minibatches. So there are three forward passes
of scoring beside generation, and one forward and backward pass of two models a minibatch. Twice a step it collects
garbage, once within scoring; that is its own and counts.

What is asked of it is what costs it least: one batch of generation and scoring, no gradient checkpointing, no logged
completions, nothing saved, logging once a step as it always does, PyTorch's own attention, fused AdamW.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers


def reward_model(job: dict[str, Any]) -> Any:
    """Our reward model as transformers reads it: the exported model, and the weights of our scalar head."""
    from safetensors.torch import load_file

    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(job["exported"], num_labels=1, dtype=torch.float32)
    head = load_file(job["head"])
    with torch.no_grad():
        model.score.weight.copy_(head["weight"][None])
    return model


def reader(job: dict[str, Any]) -> Any:
    """The tokenizer, padding on the left, with a token that stands in no prompt."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["exported"])
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(job["pad"])
    tokenizer.padding_side = "left"
    return tokenizer


class Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Seconds of each step: all of it, and of generation, scoring and update.

    The functions that a step's parts end with are wrapped in the trainer's module; what is before generation, such as
    collecting garbage, counts to the whole alone. length: tokens of replies, their end included, a step's mean.
    """

    def __init__(self, module: Any, end: int) -> None:
        self.steps: list[dict[str, float]] = []
        self.lengths: list[float] = []
        self._began = self._drawn = self._scored = self._generation = 0.0
        generate, whiten = module.batch_generation, module.masked_whiten

        def timed_generation(model: Any, queries: Any, *rest: Any) -> Any:
            began = time.perf_counter()
            found = generate(model, queries, *rest)
            self._drawn = time.perf_counter()
            self._generation = self._drawn - began
            is_end = (found[0][:, queries.shape[1] :] == end).int()
            self.lengths.append(float((is_end.cumsum(1) - is_end == 0).sum(1).float().mean()))
            return found

        def timed_whiten(*arguments: Any, **more: Any) -> Any:
            found = whiten(*arguments, **more)
            self._scored = time.perf_counter()
            return found

        module.batch_generation, module.masked_whiten = timed_generation, timed_whiten

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.perf_counter()
        self.steps.append(
            {
                "seconds": now - self._began,
                "generation": self._generation,
                "scoring": self._scored - self._drawn,
                "update": now - self._scored,
            }
        )
        self._began = now


def train(job: dict[str, Any], folder: str) -> tuple[list[dict[str, float]], list[float]]:
    """Steps, warm-up included, and mean lengths of replies."""
    try:
        from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
    except ImportError:
        version = importlib.metadata.version("trl")
        raise SystemExit(f"trl {version} has no PPO. Use trl==1.12.0, the last release that has it.") from None
    from datasets import Dataset

    tokenizer = reader(job)
    policy, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(job["exported"], dtype=torch.float32) for _ in range(2)
    )
    config = PPOConfig(
        output_dir=folder, use_cpu=True, bf16=job["precision"] == "bfloat16", seed=job["seed"], report_to="none",
        disable_tqdm=True, save_strategy="no", gradient_checkpointing=False, num_sample_generations=0,
        learning_rate=job["lr"],
        # Only so is every minibatch a step of the optimizer: accumulated gradients would wait for a whole batch.
        per_device_train_batch_size=job["batch"], gradient_accumulation_steps=1, num_mini_batches=job["minibatches"],
        total_episodes=(job["warm_up"] + job["steps"]) * job["batch"], num_ppo_epochs=1,
        local_rollout_forward_batch_size=job["batch"], response_length=job["reply"], temperature=1.0,
        missing_eos_penalty=1.0, stop_token="eos",  # noqa: S106
    )  # fmt: skip
    clock = Clock(ppo_trainer, tokenizer.eos_token_id)
    prompts = Dataset.from_dict({"input_ids": job["prompts"]})
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward_model(job),
        value_model=reward_model(job), train_dataset=prompts, eval_dataset=prompts, callbacks=[clock],
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.steps, clock.lengths


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        steps, lengths = train(job, folder)
    timed, drawn = steps[job["warm_up"] :], lengths[job["warm_up"] :]
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    told = {
        "steps": timed,
        "reply_tokens": sum(drawn) / len(drawn),
        "peak_rss": next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")),
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
