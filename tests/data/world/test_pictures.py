"""Papers, screens, unusual things, panels, diagrams: the truth, read back from what was drawn; words give none away."""

import re
from collections import Counter, defaultdict
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from foretell.data.world import diagrams, make_items
from foretell.data.world.colors import COLORS
from foretell.data.world.panels import ORDERS
from foretell.data.world.papers import BOXES, money
from foretell.data.world.scenes import RELATIONS
from foretell.data.world.unusual import NOTHING, THINGS, Unusual, _scene

KINDS = ("papers", "screens", "unusual", "panels", "diagrams")
CLOSED = 5.0  # standard errors that the best guess may lie above chance


def pictures(item):
    data = [segment.image for segment in item.content.segments if segment.image is not None]
    return [np.asarray(Image.open(BytesIO(image)).convert("RGB")) for image in data]


def asked(item):
    return [segment.text for segment in item.content.segments if segment.role == "user" and segment.text][-1]


def mask(image, color):
    return (image == np.array(COLORS[color])).all(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_guess_from_the_words_alone_is_at_chance(kind):
    """The commonest answer to each question of the training side, tried on the held-out side."""
    counts, right = defaultdict(Counter), defaultdict(list)
    for item in make_items(kind, "train", 300, 0):
        counts[template(item)][item.answer] += 1
        assert not item.choices or item.answer in item.choices
    for item in make_items(kind, "heldout", 200, 0):
        guess = counts[template(item)].most_common(1)
        right[item.task].append((float(bool(guess) and guess[0][0] == item.answer), len(item.choices)))
    for task, grades in right.items():
        hits, options = np.array(grades).T
        chance = np.mean(1 / options) if options.all() else 0.05  # open answers: prices, names, pages
        assert hits.mean() < chance + CLOSED * np.sqrt(chance / len(hits)), task


def template(item):
    """The question without what it names, which is drawn anew each time."""
    return item.task, re.sub(r'"[^"]*\."|the \w+', "…", asked(item))


@pytest.fixture
def written(monkeypatch):
    """What is written into pictures: (x, y, text), in the order in which it is written."""
    found = []
    text = ImageDraw.ImageDraw.text

    def record(self, xy, content, *args, **kwargs):
        found.append((*xy, content))
        return text(self, xy, content, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return found


def test_prices_stand_beside_their_goods_and_add_up(written):
    for seed in range(12):
        written.clear()
        (item,) = make_items("papers", "heldout", 1, seed, tasks=["papers.price", "papers.total", "papers.cheapest"])
        rows = defaultdict(list)
        for x, y, text in written:
            rows[round(y, 3)].append((x, text))
        lines = [[text for _, text in sorted(row)] for row in rows.values()]
        prices = {row[0]: row[1] for row in lines if len(row) == 2}
        total = prices.pop("TOTAL")
        cents = {good: round(100 * float(price)) for good, price in prices.items()}
        assert money(sum(cents.values())) == total
        if item.task == "papers.price":
            assert item.answer == prices[next(good for good in prices if good in asked(item))]
        else:
            assert item.answer == (total if item.task == "papers.total" else min(cents, key=cents.get))


def test_a_field_holds_its_entry_and_a_tick_stands_left_of_its_letter(written):
    for seed in range(40):
        written.clear()
        (item,) = make_items("papers", "heldout", 1, seed, tasks=["papers.field", "papers.ticked"])
        by_row = {label.rstrip(":"): value for (_, y, label), (_, z, value) in pairwise(written) if y == z}
        if item.task == "papers.field":
            assert item.answer == by_row[next(label for label in by_row if label in asked(item))]
            continue
        (image,) = pictures(item)
        blue = (np.abs(image.astype(int) - (20, 50, 160)).sum(-1) < 30).nonzero()
        low = blue[0] > 0.72 * len(image)
        at = np.median(blue[1][low])
        letters = {text: x for x, _, text in written if text in BOXES}
        assert item.answer == min((text for text in letters if letters[text] > at), key=letters.get)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.found.append((*self.open[-1], data))


def test_a_page_and_its_html_say_the_same_in_the_same_order(written):
    for seed in range(16):
        written.clear()
        (item,) = make_items("screens", "heldout", 1, seed)
        parser = Tags()
        parser.feed(item.key.removeprefix("screens:"))
        assert not parser.open
        assert [text for *_, text in sorted(written, key=lambda w: w[1])] == [text for *_, text in parser.found]
        said = {color: text for tag, color, text in parser.found if tag == "button"}
        (image,) = pictures(item)
        places = {color: np.argwhere(mask(image, color))[:, 1].mean() for color in said}
        across = {text: x for x, _, text in written}
        assert sorted(said, key=places.get) == sorted(said, key=lambda color: across[said[color]])
        truth = {
            "screens.heading": parser.found[0][-1],
            "screens.list": str(sum(tag == "li" for tag, *_ in parser.found)),
            "screens.button": next((text for color, text in said.items() if f" {color} " in asked(item)), ""),
            "screens.html": item.key.removeprefix("screens:"),
        }
        assert item.answer == truth[item.task]


def test_a_scene_differs_from_its_twin_where_the_odd_thing_stands_alone():
    import random
    from dataclasses import replace

    made, seen = Unusual(), set()
    for seed in range(24):
        scene = _scene(random.Random(seed))
        at = seed % 3
        odd = replace(scene, odd=scene.names[at])
        a, b = (np.asarray(Image.open(BytesIO(made.render(s)))).astype(int) for s in (odd, odd.twin))
        columns = np.abs(a - b).sum(-1).sum(0).nonzero()[0]
        assert len(columns)
        assert (
            made.side * (0.02 + 0.33 * at) - 1 <= columns.min() <= columns.max() <= made.side * (0.33 + 0.33 * at) + 1
        )
        assert odd.key == odd.twin.key
        seen.add(odd.odd)
    assert seen == set(THINGS)


def test_twins_are_the_two_forms_of_one_scene_and_the_answer_says_which_is_odd():
    for item in make_items("unusual", "heldout", 20, 0, tasks=["unusual.twin"]):
        first, second = pictures(item)
        assert (first != second).any()
    for item in make_items("unusual", "train", 40, 0, tasks=["unusual.what"]):
        assert (item.answer == NOTHING) or item.answer in {remark for _, remark in THINGS.values()}


def drawn_amount(image, color, story):
    """How much of the story's colour is seen, which grows with the story, or shrinks (a candle)."""
    amount = mask(image, color).sum() if story != "a plant grows" else (image == (50, 130, 60)).all(-1).sum()
    return -amount if story == "a candle burns down" else amount


def test_panels_in_the_answers_order_tell_the_story():
    for item in make_items("panels", "heldout", 40, 0, tasks=["panels.order"]):
        _, story, color, _ = item.key.split(":")
        (image,) = pictures(item)
        wide = len(image) // 3
        amounts = {
            letter: drawn_amount(image[18:, i * wide : (i + 1) * wide], color, story) for i, letter in enumerate("ABC")
        }
        assert item.answer == "".join(sorted(amounts, key=amounts.get))
        assert item.answer in ORDERS


def test_the_later_picture_is_further():
    for item in make_items("panels", "heldout", 30, 0, tasks=["panels.later"]):
        _, story, color, _ = item.key.split(":")
        first, second = (drawn_amount(image, color, story) for image in pictures(item))
        assert item.answer == ("second" if second > first else "first")


def test_a_wrong_caption_is_wrong_in_what_the_answer_says():
    for item in make_items("panels", "heldout", 100, 0, tasks=["panels.wrong", "panels.caption"]):
        (image,) = pictures(item)
        told = re.search('"([^"]*)"', asked(item))[1].lower()
        found = {color: np.argwhere(mask(image, color)) for color in COLORS}
        found = {color: places.mean(0) for color, places in found.items() if len(places) > 8}
        named = sorted((color for color in COLORS if f" {color} " in told), key=told.index)
        same_colors = set(named) == set(found)
        if item.task == "panels.caption":
            assert item.answer == "no" or same_colors
            continue
        assert (item.answer == "color") == (not same_colors)
        if same_colors:
            down, across = found[named[0]] - found[named[1]]
            where = next(word for word in RELATIONS if f" {word} " in told)
            fits = {"left": -across, "right": across, "above": -down, "below": down}[where] > 0
            assert (item.answer == "place") == (not fits)


def test_arrows_lead_where_the_answer_says(monkeypatch):
    arrows, letters = [], {}
    draw_arrow, write = diagrams.arrow, diagrams.centred
    monkeypatch.setattr(diagrams, "arrow", lambda c, a, b, *w: (arrows.append((a, b)), draw_arrow(c, a, b, *w)))
    monkeypatch.setattr(diagrams, "centred", lambda c, at, t, s: (letters.__setitem__(t, at), write(c, at, t, s)))

    def nearest(point):
        return min(letters, key=lambda letter: np.hypot(*np.subtract(letters[letter], point)))

    for seed in range(40):
        arrows.clear(), letters.clear()
        (item,) = make_items("diagrams", "heldout", 1, seed, tasks=["diagrams.next", "diagrams.steps"])
        leads = {nearest(start): nearest(end) for start, end in arrows}
        start = re.search(r"\b([A-F])\b", asked(item))[1]
        assert item.answer == (leads[start] if item.task == "diagrams.next" else leads[leads[start]])
        assert len(leads) == 5


def test_lengths_give_area_and_perimeter(written):
    for seed in range(30):
        written.clear()
        (item,) = make_items("diagrams", "heldout", 1, seed, tasks=["diagrams.area", "diagrams.perimeter"])
        a, b = (int(text) for *_, text in written)
        assert item.answer == str(a * b if item.task == "diagrams.area" else 2 * (a + b))


def test_a_parts_letter_stands_in_its_corner(written):
    fill = {"square": (0.99, 1.0), "cross": (0.49, 0.7), "star": (0.25, 0.48), "circle": (0.7, 0.88)}
    seen = Counter()
    for seed in range(80):
        written.clear()
        (item,) = make_items("diagrams", "heldout", 1, seed, tasks=["diagrams.part"])
        shape = next((shape for shape in fill if shape in asked(item)), None)
        if shape is None:
            continue
        (image,) = pictures(item)
        color = item.key.rpartition(":")[2]
        half = len(image) // 2
        x, y = next((x, y) for x, y, text in written if text == item.answer)
        corner = mask(image, color)[(y > half) * half :, (x > half) * half :][:half, :half]
        rows, columns = corner.nonzero()
        share = corner.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
        assert fill[shape][0] <= share <= fill[shape][1]
        seen[shape] += 1
    assert len(seen) == 4
