"""redteam: hunt (by default), notes, page, export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from foretell.cli import draw

if TYPE_CHECKING:
    from foretell.evals.redteam.journal import Record

HUNT = "hunt"


class _Group(TyperGroup):
    """`foretell redteam MODEL` is `foretell redteam hunt MODEL`."""

    default = HUNT

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, [self.default, *args] if args and args[0] not in known else args)


app = typer.Typer(
    cls=_Group,
    help="Attack a model by families and areas of risk, and keep what is found. `foretell redteam MODEL` begins.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a red team.")]
Taxonomy = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Areas and requests of your own (YAML); default the card's nine.")
]
Attacks = Annotated[Path | None, typer.Option(metavar="FILE", help="Families of attacks of your own (YAML).")]
Tokens = Annotated[int, typer.Option("--max-tokens", "--max_tokens", min=1, help="Of a reply.")]
Host = Annotated[str, typer.Option(help="Address to serve the page of --session at.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Browser = Annotated[bool, typer.Option(help="Open a browser.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds in which an endpoint must answer.")]


@app.command(HUNT)
def hunt(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run, checkpoint, open weights, GGUF or hub id; an endpoint's URL (URL#MODEL); the name of a model "
            "at OPENAI_BASE_URL; module:function.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default runs/redteam/MODEL. What is there, goes on.")
    ] = None,
    session: Annotated[bool, typer.Option("--session", help="Serve the page for people; nothing is searched.")] = False,
    area: Annotated[list[str] | None, typer.Option(help="Only this area; may be repeated.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this family; may be repeated.")] = None,
    taxonomy: Taxonomy = None,
    attacks: Attacks = None,
    seeds: Annotated[str, typer.Option(help="Requests: text, or world (invented hazards, exact oracle).")] = "text",
    things: Annotated[int, typer.Option(min=6, help="Of the world, as in the model's recipe.")] = 24,
    world: Annotated[int, typer.Option(help="Seed of the world, as in the model's recipe.")] = 0,
    judge: Annotated[
        str, typer.Option(help="words, world, moderation, model:MODEL, rubric:MODEL, module:function.")
    ] = "",
    translator: Annotated[str | None, typer.Option(metavar="MODEL", help="Translates requests.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Also attacks by pictures; the model must see.")] = False,
    survey: Annotated[int, typer.Option(min=0, help="Tries of each family on each area.")] = 2,
    search: Annotated[int, typer.Option(min=0, help="Tries of the search, all areas together.")] = 180,
    test: Annotated[int, typer.Option(min=1, help="Attacks of each area that are tested.")] = 2,
    fresh: Annotated[int, typer.Option(min=1, help="Requests of each area that are kept for the test, at most.")] = 8,
    deepest: Annotated[int, typer.Option(min=1, max=6, help="Operators of one attack.")] = 3,
    uniform: Annotated[bool, typer.Option("--uniform", help="Sample attacks uniformly, for comparison.")] = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    max_tokens: Tokens = 160,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    host: Host = "127.0.0.1",
    port: Port = 7676,
    browser: Browser = True,
    timeout: Timeout = 600,
) -> None:
    """Attack a model: each family once, an adaptive search, and a test of what it found on fresh requests.

    The same command goes on with what was cut off.
    """
    from foretell.evals.redteam import hunt as hunting
    from foretell.evals.redteam.journal import Journal
    from foretell.evals.redteam.operators import load_operators
    from foretell.locks import lock

    catalogue = load_operators(attacks) if attacks else load_operators()
    catalogue = catalogue.only(family) if family else catalogue if images else catalogue.without_images()
    areas = _areas(seeds, taxonomy, area or [], seed, fresh, things, world)
    plan = hunting.Plan(survey, search, test, deepest, not uniform, seed, max_tokens, temperature)
    fn = _model(model, timeout)
    folder = out or Path("runs/redteam") / (re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model")
    if session:
        titles = {one.name: one.title for one in areas}
        _session(folder, fn, model, catalogue, titles, max_tokens, temperature, host, port, browser)
        return
    made = hunting.Hunt(fn, _judge(judge, seeds, timeout), catalogue, areas, plan, _translator(translator, timeout))
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        journal = Journal(folder, made.head | {"ref": model}, made.settings)
        try:
            with draw.progress() as report:
                record = made.run(journal, report)
        finally:
            journal.close()
            _write(folder)
    _tell(record)
    print(f"\nPage:    {folder / 'page' / 'index.html'}\nSummary: {folder / 'redteam.summary.json'}")


@app.command()
def notes(
    folder: Folder,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="To talk to; default the folder's.")] = None,
    taxonomy: Taxonomy = None,
    attacks: Attacks = None,
    max_tokens: Tokens = 300,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    host: Host = "127.0.0.1",
    port: Port = 7676,
    browser: Browser = True,
    timeout: Timeout = 600,
) -> None:
    """Serve a page on which people talk to the model and write down what they find. Ctrl-C ends it."""
    from foretell.evals.redteam.journal import read_journal
    from foretell.evals.redteam.operators import load_operators

    record = read_journal(folder)
    ref = model or str(record.head.get("ref") or record.head.get("model"))
    titles = {one.name: one.title for one in _areas("text", taxonomy, [], 0, 8, 24, 0)} if taxonomy else record.areas
    catalogue = load_operators(attacks) if attacks else load_operators()
    fn = _model(ref, timeout)
    _session(folder, fn, ref, catalogue, titles, max_tokens, temperature, host, port, browser)


@app.command()
def page(folder: Folder) -> None:
    """Write the pages and the card's summary of a folder anew."""
    print(f"Page: {_write(folder)}")


@app.command()
def export(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="FILE", help="JSON lines, as sft, reward, dpo and ppo read them.")],
    tests: Annotated[
        bool, typer.Option("--tests", help="Also what succeeded in the test; its requests are then used up.")
    ] = False,
) -> None:
    """Write what succeeded as training data: the attack as prompt, with the refusal that it should have met."""
    from foretell.evals.redteam import findings
    from foretell.evals.redteam.journal import read_journal

    count, known = findings.export(read_journal(folder), to, tests=tests)
    print(f"{count} findings in {to}, {known} of them with a refusal.")
    if count > known:
        print(f"{count - known} have none: they serve as prompts (ppo) and as bad ratings (reward, dpo), not for sft.")


def _areas(
    seeds: str, taxonomy: Path | None, names: list[str], seed: int, fresh: int, things: int, world: int
) -> list[Any]:
    from foretell.evals.redteam import taxonomy as areas

    if seeds not in ("text", "world"):
        raise typer.BadParameter(f"--seeds is {seeds!r}; expected text or world.")
    if seeds == "world":
        if taxonomy is not None:
            raise typer.BadParameter("--taxonomy gives requests as text; leave out --seeds world.")
        return areas.world_areas(names, seed, fresh, things, world)
    return areas.areas_of(taxonomy, names, seed, fresh) if taxonomy else areas.packaged_areas(names, seed, fresh)


def _model(ref: str, timeout: float) -> Any:
    from foretell.evals.models import make_model
    from foretell.evals.registry import Registry

    return make_model(ref, Registry(), 16, timeout)


def _translator(ref: str | None, timeout: float) -> Any:
    return None if ref is None else _model(ref, timeout)


def _judge(name: str, seeds: str, timeout: float) -> Any:
    from foretell.evals.registry import Registry
    from foretell.pipeline.redteam import make_judge

    return make_judge(name or ("world" if seeds == "world" else "words"), Registry(), timeout)


def _session(
    folder: Path, fn: Any, ref: str, catalogue: Any, areas: Any, max_tokens: int, temperature: float,
    host: str, port: int, browser: bool,
) -> None:  # fmt: skip
    from foretell.evals.redteam import session
    from foretell.evals.redteam.hunt import head_of
    from foretell.evals.redteam.journal import Journal
    from foretell.locks import lock

    families = {f.name: {"title": f.title, "source": f.source} for f in catalogue.families.values()}
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        journal = Journal(folder, head_of(fn, areas, families) | {"ref": ref}, None)
        try:
            made = session.Session(fn, journal, catalogue, areas, max_tokens=max_tokens, temperature=temperature)
            session.serve(made, host, port, browser)
        finally:
            journal.close()
            print(f"\nPage: {_write(folder)}")


def _write(folder: Path) -> Path:
    from foretell.evals.redteam.findings import write_summary
    from foretell.evals.redteam.journal import read_journal
    from foretell.evals.redteam.page import write_pages

    record = read_journal(folder)
    write_summary(record)
    return write_pages(record, record.path.parent / "page")


def _tell(record: Record) -> None:
    from foretell.evals.redteam import findings

    rows = []
    for one in findings.found(record):
        value = one.tested.value
        shown = (f"{value.estimate:.2f}", f"{value.low:.2f} to {value.high:.2f}") if one.tested.n else ("", "")
        searched = f"{one.searched[0]}/{one.searched[1]}" if one.rank else ""
        rows.append(
            (one.area, findings.plain_name(one.attack) if one.rank else "asked plainly", searched, *shown, one.tested.n)
        )
    draw.table(("area", "attack", "in search", "on fresh requests", "95 % interval", "n"), rows, right=(2, 3, 5))
    lost = sum(one.outcome is None for one in record.tries)
    if lost:
        print(f"{lost} of {len(record.tries)} tries have no outcome and are in no rate; the page says why.")
