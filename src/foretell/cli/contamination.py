"""contamination: index, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretell.cli import draw

app = typer.Typer(help="What of an eval stood in a training corpus.", no_args_is_help=True)


@app.command()
def index(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Runs, or files and folders of text, JSON lines or Parquet."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the index is written.")],
    field: Annotated[
        list[str] | None, typer.Option(help="Of JSON lines and Parquet: where text stands (text); may be repeated.")
    ] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Compare without regard to case.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be read, and tell them; else they end it.")
    ] = False,
) -> None:
    """Index a training corpus, to look for texts in it; the same command goes on with what was cut off."""
    from foretell.data.texts import corpus_files
    from foretell.errors import RowError
    from foretell.measure.overlap import build

    bad: list[RowError] = []
    files = corpus_files(sources, field or ("text",), bad.append if skip_bad else None)
    with draw.progress() as report:
        made = build(files, out, ignore_case=ignore_case, report=report)
    for error in bad[:10]:
        print(f"left out: {error}")
    if len(bad) > 10:
        print(f"… and {len(bad) - 10} more rows.")
    print(
        f"{out}: {made['documents']:,} documents of {len(made['sources']):,} files, "
        f"{made['characters_bytes'] / 1e6:,.1f} MB of letters and digits"
    )


@app.command()
def check(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="LOG|EVAL...", help="Logs of eval runs, names of evals, or files of samples."),
    ],
    index: Annotated[Path, typer.Option(metavar="FOLDER", help="Of foretell contamination index.")],
    part: Annotated[
        str, typer.Option(help="Of an item: question (with its context), options (as well), or all (with answers).")
    ] = "question",
    substrings: Annotated[int, typer.Option(min=1, help="Drawn of each item.")] = 3,
    length: Annotated[int, typer.Option(min=1, help="Letters and digits of each.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many items of each eval.")] = None,
    exam: Annotated[
        list[str] | None, typer.Option(help="Evals that are exams: a name or pattern; may be repeated.")
    ] = None,
    registry_path: Annotated[
        list[Path] | None,
        typer.Option("--registry-path", metavar="FOLDER", help="A further registry; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the page and its figures there.")] = None,
    verify: Annotated[bool, typer.Option(help="Compare the index with its digests first.")] = True,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Also where the corpus has changed since it was indexed.")
    ] = False,
) -> None:
    """Which items stood in the corpus, and the scores with and without them; the lower one is to be reported."""
    from foretell.evals.contamination import tables
    from foretell.evals.contamination_check import check_contamination
    from foretell.evals.contamination_page import shown, write_report
    from foretell.measure.overlap import Index

    opened = Index(index, verify)
    opened.require_current(outdated)
    with draw.progress() as report:
        found = check_contamination(
            targets, opened, part=part, count=substrings, length=length, seed=seed, sample=sample, exams=exam or (),
            registries=registry_path or (), report=report,
        )  # fmt: skip
    for table in tables(found):
        if table.rows:
            print(f"{table.title}:\n")
            rows = [
                [_plain(shown(cell, head)) for cell, head in zip(row, table.head, strict=True)] for row in table.rows
            ]
            draw.table(
                table.head, rows, right=[i for i, head in enumerate(table.head) if head not in ("eval", "model")]
            )
            print()
    for note in [*opened.notes, *dict.fromkeys(f"{e.eval}: {e.note}" for e in found if e.note)]:
        print(note)
    if out is not None:
        settings = {"part": part, "substrings": substrings, "length": length, "seed": seed, "sample": sample or "all"}
        print(f"Page: {write_report(out, found, opened.about, settings)}")


def _plain(text: str) -> str:
    """With common spaces, for what reads tables by its columns."""
    return text.replace("\u202f", " ")
