"""The other side of adapters.py, by an interpreter that has PEFT: python adapters_peer.py JOB full|lora.

This file imports nothing of Foretell, so that its environment need not have it. A bare loop over a LlamaForCausalLM,
whole or as a PeftModel: forward pass with labels, backward pass, clipping, fused AdamW. There is no trainer around it
and nothing is logged, which is what costs it least; attention is PyTorch's own. Prints one line of JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def load(job: Mapping[str, Any], mode: str) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(job["exported"], dtype=torch.float32)
    model.config.use_cache = False
    if mode == "full":
        return model.train()
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=job["rank"], lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS, bias="none", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config).train()


def train(job: Mapping[str, Any], mode: str) -> dict[str, Any]:
    model = load(job, mode)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job["lr"], weight_decay=0.0, fused=True)
    loaded, half = memory("VmRSS"), job["length"] // 2
    seconds, losses = [], []
    for tokens in torch.tensor(job["tokens"]):
        began = time.perf_counter()
        labels = tokens.clone()
        labels[:, :half] = -100
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - began)
    names = ("peft", "transformers", "torch") if mode == "lora" else ("transformers", "torch")
    return {
        "seconds": seconds[job["warm_up"] :],
        "losses": losses,
        "peak_rss": memory("VmHWM"),
        "loaded_rss": loaded,
        "trained": sum(parameter.numel() for parameter in trained),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    transformers.logging.set_verbosity_error()
    print(json.dumps(train(job, sys.argv[2])))


if __name__ == "__main__":
    main()
