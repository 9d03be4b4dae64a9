"""The page to look at a collection: documents by source with their figures, what each step did, histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from foretell.data.collection import examples
from foretell.data.collection.card import Card, facts
from foretell.data.collection.examples import CUT, Example, Sampler, pieces
from foretell.data.collection.finish import manifests
from foretell.data.collection.places import read_state
from foretell.data.collection.tally import Tally
from foretell.data.collection.why import finished
from foretell.errors import RunError
from foretell.files import write_text
from foretell.pages import Bar, Html, bar_chart, compact, details, el, figure, image, join, number, page, section

YEARS = 30
CAPTION = 200  # characters
Show = Callable[[Example], Html]


def view(out: Path, *, source: str | None = None, step: str | None = None, count: int = 5) -> Path:
    """Write view.html in the collection's folder and return its path.

    source, step: only examples of these. count: of each group. Raises RunError for what is no finished collection.
    """
    places, recipe, shards = finished(out)
    known = [each.name for each in recipe.sources]
    if source is not None and source not in known:
        raise RunError(f"The collection has no source {source!r}; its sources are {', '.join(known)}.")
    names = ["read", *(each.step for each in recipe.steps), *(each.kind for each in recipe.passes)]
    if step is not None and step not in names:
        raise RunError(f"The collection has no step {step!r}; its steps and passes are {', '.join(names)}.")
    tally, sampler = Tally(), Sampler(count)
    for manifest in manifests(shards, places):
        tally.join(manifest)
        found = examples.load(places.examples(manifest["shard"]))
        sampler.join(e for e in found if source in (None, e["source"]) and step in (None, e.get("step")))
    card = Card(recipe, read_state(out), tally, sampler.taken())
    path = places.out / "view.html"
    write_text(path, html(card))
    return path


def html(card: Card) -> str:
    groups: dict[str, list[Example]] = {}
    for example in card.examples:
        groups.setdefault(example["kind"], []).append(example)
    sections = [
        section("Figures of the whole", facts(card)),
        section("Histograms", *histograms(card.tally)),
        section("Kept", *_kept(groups.get("kept", ())), note="Some documents of each source, as a model reads them."),
        section(
            "Changed",
            *_by_group(groups.get("changed", ()), _change),
            note="Before and after each step, from a little before the first difference.",
        ),
        section(
            "Removed",
            *_by_group(groups.get("removed", ()), _removal),
            note="Some documents for each reason, and what was found.",
        ),
    ]
    return page(
        card.recipe.name, sections, kicker="Collection", lead=card.headline, footer="Made by foretell data view."
    )


def histograms(tally: Tally) -> list[Html]:
    kept = _lengths(tally.lengths)
    return [
        figure(bar_chart(_lengths(tally.lengths_in), title="Records that came in, by their characters"),
               "Characters of the records that came in (0: those that could not be read)"),
        figure(bar_chart(kept, title="Documents kept, by their characters"), "Characters of the documents kept"),
        figure(bar_chart(_bars(tally.removed), title="Records removed, by reason"), "Records removed, by reason"),
        figure(bar_chart(_bars({k: c["chars"] for k, c in tally.languages.items()}), title="Characters by language"),
               "Characters kept, by language"),
        figure(bar_chart(_bars({k: c["chars"] for k, c in tally.licenses.items()}), title="Characters by licence"),
               "Characters kept, by licence"),
        figure(bar_chart(_years(tally), title="Characters by year"), "Characters kept, by year"),
    ]  # fmt: skip


def _lengths(counts: Counter[str]) -> list[Bar]:
    known = sorted(map(int, counts))
    if not known:
        return []
    largest = known[-1]
    steps = [0] if 0 in known else []
    at = next((n for n in known if n), 0)
    while at and at <= largest:
        steps.append(at)
        at *= 2
    return [Bar("0" if n == 0 else f"{n:,} – {2 * n - 1:,}", counts[str(n)], number(counts[str(n)])) for n in steps]


def _bars(counts: dict[str, int], most: int = 20) -> list[Bar]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(value for _, value in ordered[most:])
    bars = [Bar(name, value, compact(value)) for name, value in ordered[:most]]
    return [*bars, Bar(f"{len(ordered) - most} others", rest, compact(rest))] if rest else bars


def _years(tally: Tally) -> list[Bar]:
    return [Bar(year, c["chars"], compact(c["chars"])) for year, c in sorted(tally.years.items())[-YEARS:]]


def _kept(found: Iterable[Example]) -> list[Html]:
    groups: dict[str, list[Html]] = {}
    for example in found:
        about = [example["license"], example["language"], example["date"] or "no date"]
        shown = [figure(image(p["uri"], p["alt"]), _brief(p["alt"])) for p in example["images"]]
        groups.setdefault(example["source"], []).append(
            join(
                [
                    el("h3", example["document"]),
                    el("p", " · ".join(about), class_="soft"),
                    el("div", *shown, class_="figures") if shown else "",
                    el("pre", example["text"], class_="reads"),
                ]
            )
        )
    return _folded(groups)


def _brief(text: str) -> str:
    return text if len(text) <= CAPTION else text[: CAPTION - 1] + "…"


def _folded(groups: dict[str, list[Html]]) -> list[Html]:
    if not groups:
        return [el("p", "Nothing to show here.", class_="soft")]
    return [details(f"{name} ({len(shown)})", *shown) for name, shown in groups.items()]


def _by_group(found: Sequence[Example], show: Show) -> list[Html]:
    groups: dict[str, list[Html]] = {}
    for example in found:
        groups.setdefault(example["group"].partition(" ")[2], []).append(show(example))
    return _folded(groups)


def _change(example: Example) -> Html:
    old: list[object] = []
    new: list[object] = []
    found = pieces(example["before"], example["after"])
    go_on = example["before"].endswith(CUT) and example["after"].endswith(CUT)
    for i, (same, before, after) in enumerate(found):
        if go_on and i == len(found) - 2 and (before.startswith(after) or after.startswith(before)):
            # What one excerpt shows beyond the other is no change.
            old, new = [*old, same, before], [*new, same, after]
        else:
            old += [same, el("del", before) if before else ""]
            new += [same, el("ins", after) if after else ""]
    return join(
        [
            el("h3", example["document"]),
            el(
                "div",
                el("div", el("p", "before", class_="soft"), el("pre", *old, class_="reads")),
                el("div", el("p", "after", class_="soft"), el("pre", *new, class_="reads")),
                class_="beside",
            ),
        ]
    )


def _removal(example: Example) -> Html:
    return join(
        [
            el("h3", example["document"]),
            el("p", example["detail"], class_="soft") if example["detail"] else "",
            el("pre", example["before"], class_="reads"),
        ]
    )
