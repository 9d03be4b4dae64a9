"""What a CUDA GPU gives: training at 150 M and 1 B parameters, decoding, rollouts; written to results/scale.gpu.json.

    python benchmarks/gpu.py [--rounds 3]
    python benchmarks/gpu.py --tiny        # the same path at toy size on any machine, written nowhere

MFU is training FLOPs by our count (`model.describe`: matrix products, causal attention, the head) over what the data
sheet gives in bfloat16, as others state it; by 6 FLOPs a token and parameter it stands beside. Decoding is one reply at
150 M parameters, as a share of the measured memory-read bandwidth; rollouts are many replies of the same model at once.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from common import figure, write_result
from foretell.measure import machine
from foretell.pipeline.bench import decoding, shape_recipe, training
from foretell.recipes import override

AIMS = {"mfu_150m": 50.0, "mfu_1b": 55.0, "decode_bandwidth_share": 0.7, "rollout_tokens_s": 20_000}
ROLLOUTS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="toy sizes, on any machine, to try the path")
    options = parser.parse_args()
    device = "cpu" if options.tiny else "cuda"
    if not options.tiny and not torch.cuda.is_available():
        print("There is no CUDA device, so nothing is measured. Try the path with --tiny.")
        return
    peak = machine.datasheet_rate(device)
    if peak is None:
        peak = machine.matmul_rate("bfloat16", 512 if options.tiny else 8192, device=device)
    names = {"mfu_150m": "tiny", "mfu_1b": "tiny"} if options.tiny else {"mfu_150m": "150m", "mfu_1b": "1b"}
    found: dict[str, list[float]] = {"matmul_tflops": [], "memory_read_gb_s": []}

    def keep(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(options.rounds):
        keep("matmul_tflops", machine.matmul_rate("bfloat16", 512 if options.tiny else 8192, device=device) / 1e12)
        read = machine.read_bandwidth(64 if options.tiny else 4096, device=device)
        keep("memory_read_gb_s", read / 1e9)
        for name, shape in names.items():
            compiled = [] if options.tiny else ["train.compile=true"]
            trained = training(override(shape_recipe(shape), [*compiled, f"train.device={device}"]), "bfloat16", device)
            keep(name, 100 * trained.flops_s / peak)
            keep(f"{name}_6n", 100 * trained.flops_s_6n / peak)
            keep(name.replace("mfu", "tokens_s"), trained.tokens_s)
        recipe = shape_recipe(names["mfu_150m"])
        config = recipe.model.model_copy(update={"vocab_size": recipe.tokenizer.vocab_size, "image_token": 0})
        rate, nbytes = decoding(config, torch.bfloat16, torch.device(device), 1)
        keep("decode_tokens_s", rate)
        keep("decode_bandwidth_share", rate * nbytes / read)
        rows = 4 if options.tiny else ROLLOUTS
        keep("rollout_tokens_s", decoding(config, torch.bfloat16, torch.device(device), rows)[0])
    units = {"mfu": "% of the data sheet's bfloat16 rate", "tok": "tokens/s", "dec": "of measured memory read"}
    figures: dict[str, Any] = {}
    for name, values in found.items():
        unit = "tokens/s" if "tokens_s" in name else units.get(name[:3], name.partition("_")[2])
        figures[name] = figure(values, unit, AIMS.get(name))
        print(f"{name:24} {figures[name]['value']:>10} {unit}")
    if not options.tiny:
        print(write_result("scale", "python benchmarks/gpu.py", figures))


if __name__ == "__main__":
    main()
