"""eval: run, list, view, chart, compare, history, gate, new, check, import."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretell.cli import draw
from foretell.cli.rates import rates
from foretell.cli.run import On

if TYPE_CHECKING:
    from foretell.evals.api import EvalReport
    from foretell.evals.registry import Registry
    from foretell.evals.results import Result

app = typer.Typer(help="Measure models: OpenAI's eval registry and our own.", no_args_is_help=True)

Registries = Annotated[
    list[Path] | None,
    typer.Option("--registry-path", "--registry_path", metavar="FOLDER", help="A further registry; may be repeated."),
]
Store = Annotated[str, typer.Option(metavar="FILE|URL", help="Results store: SQLite file, or PostgreSQL by URL.")]
STORE = "runs/evals/history.sqlite"
MODEL_HELP = (
    "A run, checkpoint, open weights, GGUF or hub id; an endpoint's URL (URL#MODEL); the name of a model at "
    "OPENAI_BASE_URL (default OpenAI); module:function; a completion function of the registry; dummy. Several, split "
    "by commas, where an eval compares models; the last one grades."
)


@app.command()
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    evals: Annotated[list[str], typer.Argument(metavar="EVAL...", help="Evals, eval sets, or patterns with *.")],
    grader: Annotated[str | None, typer.Option(help="Model that grades; default the last MODEL.")] = None,
    max_samples: Annotated[int | None, typer.Option("--max-samples", "--max_samples", min=1)] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often each sample is asked.")] = 1,
    reducer: Annotated[str, typer.Option(help="Of a sample's epochs: mean, mode, max, pass@K.")] = "mean",
    seed: Annotated[int, typer.Option(help="Of what a sample draws, such as the order of answers.")] = 20220722,
    concurrency: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Evals at a time, each in a process; default one, on a cluster its cores.")
    ] = None,
    on: On = "local",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds in which an endpoint must answer.")] = 600,
    completion_args: Annotated[
        str, typer.Option("--completion-args", "--completion_args", metavar="K=V,…", help="For every question.")
    ] = "",
    extra_eval_params: Annotated[
        str, typer.Option("--extra-eval-params", "--extra_eval_params", metavar="K=V,…", help="Settings of the eval.")
    ] = "",
    registry_path: Registries = None,
    record_path: Annotated[
        Path | None, typer.Option("--record-path", "--record_path", metavar="FILE", help="The log, for one eval.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FILE", help="Answers kept over runs (SQLite).")] = None,
    max_tokens_spent: Annotated[int | None, typer.Option(min=1, help="Budget: tokens of prompts and replies.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Budget: money, by --price.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Budget: time.")] = None,
    price: Annotated[str, typer.Option(metavar="IN,OUT", help="Of a million prompt and reply tokens.")] = "0,0",
    user: Annotated[str, typer.Option(help="Who runs it, for the log.")] = "",
    store: Store = STORE,
    product: Annotated[str, typer.Option(help="Product or integration, for the history.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew beside a run that was cut off.")] = False,
    exit_on_error: Annotated[
        bool, typer.Option(help="Of several evals: end with the first that cannot be run, or go on with the others.")
    ] = True,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Run models' programs without a sandbox where none works.")
    ] = False,
) -> None:
    """Run evals on a model; the same command goes on with what was cut off.

    Scores come with a 95 % interval. Logs lie in runs/evals, in the form of OpenAI Evals.
    """
    from foretell.evals import api
    from foretell.evals.runner import Budget

    registry = api.open_registry(registry_path or ())
    _importable(registry_path or ())
    names = _names(registry, evals)
    if record_path is not None and len(names) > 1:
        raise typer.BadParameter(f"--record-path is for one eval; {len(names)} are named.")
    defaults = _pairs(completion_args, "--completion-args")
    prices = _prices(price)
    budget = Budget(max_tokens_spent, max_cost, None if max_minutes is None else 60 * max_minutes, *prices)
    from foretell.evals.models import ModelRef

    workers = 1 if workers is None and on == "local" else workers
    models: list[Any] = [ModelRef(ref, timeout, json.dumps(defaults)) for ref in model.split(",")]
    judge: Any = ModelRef(grader, timeout) if grader else None
    if workers == 1 and on == "local":
        models = [each.make(registry, concurrency) for each in models]
        judge = judge and judge.make(registry, concurrency)
    args = _pairs(extra_eval_params, "--extra-eval-params") | ({"allow_unsafe": True} if allow_unsafe else {})
    failed = 0
    for name, done in api.run_set(
        names, models, exit_on_error=exit_on_error, fresh=fresh, progress=draw.progress, grader=judge,
        samples=max_samples, epochs=epochs, reducer=reducer, seed=seed, concurrency=concurrency, budget=budget,
        registry=registry, args=args, out=record_path, cache=cache, user=user, command=shlex.join(sys.argv),
        workers=workers, on=on,
    ):  # fmt: skip
        if isinstance(done, Exception):
            failed += 1
            print(f"\n{name}: {done}", file=sys.stderr)
        else:
            _tell(name, done)
            _remember(done, store, product)
    if failed:
        print(f"\n{failed} of {len(names)} evals could not be run; the same command goes on.", file=sys.stderr)
        raise typer.Exit(2)


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Only names that hold this.")] = "",
    registry_path: Registries = None,
) -> None:
    """The evals and eval sets that can be run."""
    from foretell.evals.api import open_registry

    registry = open_registry(registry_path or ())
    rows = [(name, "set", "") for name in registry.sets if pattern in name and name not in registry.evals]
    for name, entry in registry.evals.items():
        if pattern in name and (entry.alias is None or "." not in name):
            told = entry.raw if isinstance(entry.raw, dict) else {}
            cls = str(told.get("class", "")).rpartition(":")[2]
            rows.append((name, cls or f"→ {entry.alias}", " ".join(str(told.get("description", "")).split())[:80]))
    draw.table(("name", "kind", "what"), rows)


@app.command()
def view(
    logs: Annotated[Path, typer.Argument(help="A log, or a folder of logs.")] = Path("runs/evals"),
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write pages there instead of serving them.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7575,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Look at runs: scores, samples, two models side by side. Ctrl-C ends it."""
    from foretell.evals import viewer

    if out is not None:
        with draw.progress() as report:
            viewer.export(logs, out, report)
        print(f"Pages: {out / 'index.html'}")
    else:
        viewer.serve(logs, host, port, browser)


@app.command()
def chart(
    summaries: Annotated[
        list[Path], typer.Argument(metavar="SUMMARY...", help="*.summary.json files, or folders that hold them.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("chart.html"),
) -> None:
    """A page of several runs: accuracy by number of constraints, visual tasks beside their controls."""
    from foretell.evals.summaries import find_summaries
    from foretell.evals.summary_page import summaries_page
    from foretell.files import write_text

    found = find_summaries(summaries)
    write_text(out, summaries_page(found))
    print(f"Page of {len(found)} run{'s' * (len(found) != 1)}: {out}")


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Logs or run ids; the first is the baseline.")
    ],
    store: Store = STORE,
    shown: Annotated[int, typer.Option(min=0, help="Samples that are listed.")] = 20,
) -> None:
    """Runs of one eval, sample by sample: differences with intervals, and which samples got worse."""
    from foretell.evals.compare import compare_many

    scores = [_scores(run, store) for run in runs]
    if len(scores) < 2:
        raise typer.BadParameter("give two runs or more")
    found = compare_many(scores[1:], scores[0])
    models = {each.run: each.model for each in scores}
    rows = [
        (
            c.candidate, models[c.candidate], f"{c.difference.estimate:+.4g}",
            f"{c.difference.low:+.4g} to {c.difference.high:+.4g}", f"{c.p_holm:.3g}", len(c.better), len(c.worse), c.n,
        )
        for c in found
    ]  # fmt: skip
    print(f"Against {scores[0].run} ({scores[0].model}), {found[0].eval}, {found[0].metric}:\n")
    head = ("run", "model", "difference", "95 % interval", "p (Holm)", "better", "worse", "samples")
    draw.table(head, rows, right=(2, 4, 5, 6, 7))
    for c in found:
        print(f"\n{c.candidate}: a difference of {c.detectable:.3g} would show (power 80 %).")
        for lost, name in ((c.only_baseline, scores[0].run), (c.only_candidate, c.candidate)):
            if lost:
                print(f"Only {name} has {len(lost)} samples, such as {lost[0]}.")
        if c.worse and shown:
            listed = [(x.sample, f"{x.baseline:g}", f"{x.candidate:g}") for x in c.worse[:shown]]
            print()
            draw.table(("got worse", "before", "now"), listed, right=(1, 2))
            if len(c.worse) > shown:
                print(f"… and {len(c.worse) - shown} more.")


app.command()(rates)


@app.command()
def history(
    eval: Annotated[str | None, typer.Argument(metavar="[EVAL]", help="One eval; default all.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    store: Store = STORE,
) -> None:
    """Scores over time, of all runs in the store."""
    from foretell.evals.history import History

    kept = History(store)
    runs = kept.runs(eval=eval, model=model, product=product)
    if not runs:
        print(f"{kept.name} has no such run. Add one with: foretell eval run", file=sys.stderr)
    draw.table(
        ("when", "eval", "model", "version", "product", "score", "95 % interval", "n", "run"),
        [_row(run) for run in runs],
        right=(5, 7),
    )


@app.command()
def gate(
    candidate: Annotated[str, typer.Argument(help="Log or run id of what is to be let through.")],
    no_worse_than: Annotated[str, typer.Option(help="Log or run id; last or best of the candidate's model.")],
    margin: Annotated[float, typer.Option(min=0, help="A drop that is put up with.")] = 0.0,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the interval.")] = 0.95,
    inconclusive: Annotated[
        str, typer.Option(metavar="pass|fail", help="What becomes of a run that is too weak to tell.")
    ] = "pass",
    store: Store = STORE,
) -> None:
    """Exit code 1 if a run is worse than another by more than the margin, for continuous integration."""
    from foretell.evals.history import History

    if inconclusive not in ("pass", "fail"):
        raise typer.BadParameter(f"--inconclusive is {inconclusive!r}; expected pass or fail.")
    verdict = History(store).gate(candidate, no_worse_than, margin=margin, level=level)
    print(verdict.reason)
    weak = verdict.outcome == "too weak to tell"
    if weak:
        print(
            f"Inconclusive: {'let through' if inconclusive == 'pass' else 'stopped'}, by --inconclusive {inconclusive}."
        )
    if not verdict.passed or (weak and inconclusive == "fail"):
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the eval, such as capitals.")],
    template: Annotated[
        str, typer.Option(help="match, includes, fuzzy, json, choice, graded, image, code or class.")
    ] = "match",
    registry: Annotated[Path, typer.Option(metavar="FOLDER", help="Where it is written.")] = Path("evals"),
) -> None:
    """Write the files of a new eval: its entry, two samples to go by, and what to do next."""
    from foretell.evals.scaffold import scaffold

    files = scaffold(name, template, registry)
    for file in files:
        print(f"wrote {file}")
    print(f"\nEdit the samples, then:\n  foretell eval check {registry}")
    print(f"  foretell eval run MODEL {name} --registry-path {registry}")


@app.command()
def check(
    registry: Annotated[Path, typer.Argument(metavar="REGISTRY", help="Folder that holds evals/ and data/.")],
    eval: Annotated[list[str] | None, typer.Option(help="Only these evals.")] = None,
) -> None:
    """Whether a registry's evals can be run and judge as they should. Exit code 1 where something must be mended."""
    from foretell.evals.scaffold import check_registry

    _importable([registry])
    with draw.progress() as report:
        found = check_registry(registry, eval or (), report)
    for name, problem in found.problems:
        print(f"{name}: {problem}")
    count = len(found.problems)
    print(f"{found.checked} evals, {found.samples:,} samples: {count or 'no'} problem{'s' * (count != 1)}.")
    if found.problems:
        raise typer.Exit(1)


@app.command("import")
def import_(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="Logs of OpenAI Evals or Inspect (.json, .eval).")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("runs/evals"),
    store: Store = STORE,
) -> None:
    """Bring logs of other tools in, to view and compare them."""
    from foretell.evals.history import History
    from foretell.evals.importing import import_log

    kept = History(store)
    for log in logs:
        done = import_log(log, out / f"{log.stem}.jsonl")
        row = kept.add(done)
        print(f"{log} → {done.path}: {row.eval}, {row.model}, {len(done)} samples")
        if note := done.extra.get("note"):
            print(f"  {note}")


def _importable(registries: list[Path] | tuple[()]) -> None:
    """Models and classes are found in the working folder and in registries, behind all that is installed."""
    sys.path += [str(folder.expanduser().absolute()) for folder in (Path(), *registries)]


def _names(registry: Registry, asked: list[str]) -> list[str]:
    names: dict[str, None] = {}
    for name in asked:
        names |= dict.fromkeys(registry.resolve(name))
        if missing := registry.unmatched(name):
            print(f"{name} names {len(missing)} evals that are not there, such as {missing[0]}.", file=sys.stderr)
    return list(names)


def _tell(name: str, done: EvalReport) -> None:
    from foretell.evals.base import BAD_SAMPLE
    from foretell.evals.results import model_of
    from foretell.evals.summaries import summary_path

    s, of = done.summary, model_of(done.log.spec)
    score = f"{s.estimate:.4g} ({s.interval.low:.4g} to {s.interval.high:.4g}), {s.n} samples"
    print(f"\n{name}: {score if s.n else f'no score, {len(done.log)} samples'}, {of}")
    if invalid := int(done.log.invalid.sum()):
        events = done.log.events(int(done.log.invalid.argmax()))
        id, why = next((e["sample_id"], e["data"].get("message")) for e in events if e["type"] == BAD_SAMPLE)
        print(f"  {invalid} of {len(done.log)} could not be judged, such as {id}: {why}")
    for key, value in done.report.items():
        print(f"  {key}: {value:.6g}" if isinstance(value, float) else f"  {key}: {value}")
    print(f"  log: {done.log.path}")
    if (told := summary_path(done.log.path)).is_file():
        print(f"  summary: {told}")


def _remember(done: EvalReport, store: str, product: str) -> None:
    from foretell.evals.history import History

    History(store).add(done.log, product=product)


def _scores(run: str, store: str) -> Any:
    if Path(run).is_file():
        from foretell.evals.log import read_log
        from foretell.evals.results import scores_of

        return scores_of(read_log(Path(run)))
    from foretell.evals.history import History

    return History(store).scores(run)


def _row(run: Result) -> tuple[Any, ...]:
    interval = "" if run.low is None or run.high is None else f"{run.low:.4g} to {run.high:.4g}"
    value = "" if run.value is None else f"{run.value:.4g}"
    when = f"{run.created:%Y-%m-%d %H:%M}"
    return when, run.eval, run.model, run.model_version, run.product, value, interval, run.n, run.run


def _pairs(text: str, option: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for pair in filter(None, re.split(r",(?![^\[]*\])", text)):  # not at the commas of a list
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option}: {pair!r} is no key=value.")
        found[key.strip()] = yaml.safe_load(value)
    return found


def _prices(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--price is {text!r}; expected two numbers, such as 2.5,10.") from error
    return first, second
