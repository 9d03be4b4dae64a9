"""The quickstart, from one command to a page: time, memory, and whether images matter.

    python benchmarks/quickstart.py [--run DIR]

Runs `foretell run quickstart` in a fresh temporary folder, without compiling. `wall_s` is from the start of the process
to its end; `--run` shows a finished run instead, whose wall time and memory are not known, so that it is not committed.
A visual task counts as above blind when the 95 % interval of accuracy with the image minus accuracy without it excludes
zero.
"""

from __future__ import annotations

from common import figure
from runs import Figures, FinishedRun, benchmark, cost


def measure(run: FinishedRun) -> Figures:
    examined = run.examined()
    tasks = examined["tasks"]
    figures: Figures = {}
    if run.seconds is not None:
        figures["wall_s"] = figure(run.seconds, "s, card included", 900)
    figures |= cost(run, aim_gb=4)
    above = sum(task["above_blind_low"] > 0 for task in tasks)
    figures["visual_tasks_above_blind"] = figure(above, f"of {len(tasks)} tasks", 3)
    outcome = run.manifest("outcome")["metrics"]
    figures["forecast_error_pct"] = figure(100 * abs(outcome["error"]), "% of the final loss")
    figures["forecast_covered"] = figure(int(outcome["covered"]), "1 if the 90 % interval holds the outcome", 1)
    figures["card_s"] = figure(run.manifest("card")["seconds"], "s", 60)
    figures["stages"] = figure(run.stages, "stages done")
    figures["val_bits_per_byte"] = figure(examined["text"]["bits_per_byte"], "bits per byte, whole held-out pack")
    for task in tasks:
        unit = f"share right of {task['questions']}"
        figures[f"accuracy_{task['task']}"] = figure(task["accuracy"], unit, interval=(task["low"], task["high"]))
    for task in tasks:
        margin = (task["above_blind_low"], task["above_blind_high"])
        figures[f"above_blind_{task['task']}"] = figure(task["above_blind"], "accuracy above blind", interval=margin)
    return figures


if __name__ == "__main__":
    benchmark("quickstart", measure, {"wall_s", "peak_rss_gb", "visual_tasks_above_blind", "stages"}, __doc__)
