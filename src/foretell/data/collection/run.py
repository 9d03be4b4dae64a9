"""Build a collection: plan, read and filter, deduplicate, write; cut off anywhere, the same call goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from foretell.data.collection import plan
from foretell.data.collection.execute import On, check, run_phase, submit
from foretell.data.collection.places import Places, read_state
from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.collection.work import Build, Phase, Task, opened
from foretell.errors import ForetellError, RunError
from foretell.files import describe_os_error, write_json
from foretell.locks import lock
from foretell.measure.fanout import Workers, prepare
from foretell.measure.machine import cores
from foretell.run import Report, code_version, silent

FORM = 1  # of the folder; another one is not resumed


def build(
    recipe: CollectionRecipe,
    out: Path,
    *,
    workers: int | None = None,
    on: On = "local",
    keep_work: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Bring the collection in `out` to its end and return its totals (see `tally.Tally`).

    workers: processes, default one a core. The bytes of data, images, ledger and manifests do not depend on it, nor on
    where it runs. keep_work: leave the files that serve resuming. Nothing is done for a collection that is finished.
    Raises RunError for a place where nothing can run, before anything is written, and for a folder of another recipe, a
    full disk or a killed worker, DataError for a source that is gone or changed; what is finished then stays, and the
    same call goes on from there.
    """
    places = Places(out.resolve())
    check(on, recipe.slurm)
    _mkdir(places.out)
    with lock(places.out):
        under_way = _enter(recipe, places)
        if read_state(places.out)["finished"]:
            _clear(places, keep_work)  # of what was finished, and then killed
            return totals(places.out)
        if on == "slurm":
            assert recipe.slurm is not None
            count = submit(under_way.phases(), places, recipe.slurm, recipe.name)
            report("submitted", 1, 1, f"{count} jobs; look at them with squeue")
            return {}
        alone = on == "local" and (workers or cores()) == 1
        with ExitStack() as stack:
            pool = None
            if not alone:
                if on == "local":
                    prepare(Task.__module__)
                pool = stack.enter_context(Workers(workers, on, threads=1))
            for phase in under_way.phases():
                # What is one task is soon done, or takes all the memory there is; either way it needs no other process.
                here = alone or (on == "local" and phase.tasks == 1)
                _bring_up(phase, places, None if here else pool, report)
        _clear(places, keep_work)
    return totals(places.out)


def _clear(places: Places, keep_work: bool) -> None:
    if not keep_work:
        shutil.rmtree(places.work, ignore_errors=True)


def totals(out: Path) -> dict[str, Any]:
    """The totals of a finished collection. Raises RunError for what is none, or is not finished."""
    state = read_state(out)
    if not state["finished"]:
        raise RunError(f"The collection in {out} is not finished. Run its foretell data build again.")
    found: dict[str, Any] = state["totals"]
    return found


def _mkdir(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(describe_os_error(error, out)) from error


def _enter(recipe: CollectionRecipe, places: Places) -> Build:
    """The build that is under way in the folder, begun if there is none."""
    if places.collection.exists():
        state = read_state(places.out)
        if state["key"] != recipe.key or state["form"] != FORM:
            raise RunError(
                f"{places.out} holds a collection of another recipe ({state['recipe'].get('name')!r}). Choose another "
                "folder with --out, or delete it."
            )
        # The plan stays as it was: a file that is gone since is told of when it is read, and a new one is not read.
        return opened(places.out)
    others = [file.name for file in places.out.iterdir() if not file.name.startswith(".")]
    if others and set(others) != {"plan.json"}:
        raise RunError(
            f"{places.out} is not empty and holds no collection ({', '.join(sorted(others)[:3])} …). Choose another "
            "folder with --out."
        )
    plan.save(places.plan, plan.make(recipe))
    state = {
        "form": FORM,
        "key": recipe.key,
        "code": code_version(),
        "finished": False,
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(places.collection, state)
    opened.cache_clear()
    return opened(places.out)


def _bring_up(phase: Phase, places: Places, pool: Workers | None, report: Report) -> None:
    """Run what is left of a phase. Raises the first failure by the order of the tasks."""
    shutil.rmtree(places.work / "failed" / phase.name, ignore_errors=True)
    left = [task for task in range(phase.tasks) if not places.done(phase.name, task).exists()]
    if not left:
        return
    report(phase.title, phase.tasks - len(left), phase.tasks)

    def tick() -> None:
        report(phase.title, _count(places.work / "done" / phase.name), phase.tasks)

    def tell(said: str) -> None:
        report(phase.title, 0, 0, said)

    try:
        run_phase(phase, places, left, pool, tick, tell)
    except OSError as error:  # of an executor's own logs
        raise RunError(describe_os_error(error, places.out)) from error
    tick()
    for task in left:
        if not places.done(phase.name, task).exists():
            raise _failure(phase, task, places)


def _count(folder: Path) -> int:
    return sum(1 for file in folder.glob("[0-9]*.json")) if folder.is_dir() else 0


def _failure(phase: Phase, task: int, places: Places) -> Exception:
    try:
        found = json.loads(places.failed(phase.name, task).read_bytes())
    except (OSError, ValueError):
        return RunError(
            f"Task {task} of {phase.title!r} ended without a result (killed, or no space to tell why). Of a cluster, "
            f"its log lies in {places.logs(phase.name)}. What is finished stays; run the same command again."
        )
    if found["trace"] and found["message"] != "out of memory":
        return RuntimeError(f"{found['message']} in task {task} of {phase.title!r}\n{found['trace']}")
    if found["message"] == "out of memory":
        return MemoryError(f"in task {task} of {phase.title!r}")
    return ForetellError(found["message"])
