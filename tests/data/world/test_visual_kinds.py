"""Scenes, charts and rendered text: the truth, read back from the pixels."""

from collections import Counter
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from foretell.data.world import make_items
from foretell.data.world.charts import Charts
from foretell.data.world.colors import BACKGROUNDS, COLORS
from foretell.data.world.rendered import PAPERS

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
FILL = {  # shape → share of its bounding box that is filled
    "circle": (0.70, 0.88),
    "square": (0.99, 1.0),
    "triangle": (0.44, 0.62),
    "star": (0.25, 0.48),
    "diamond": (0.44, 0.62),
    "cross": (0.49, 0.70),
}


def pixels(item):
    data = next(segment.image for segment in item.content.segments if segment.image is not None)
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def asked(item):
    return [segment.text for segment in item.content.segments if segment.role == "user" and segment.text][-1]


def masks(image):
    found = {color: (image == np.array(rgb)).all(-1) for color, rgb in COLORS.items()}
    return {color: mask for color, mask in found.items() if mask.sum() >= 9}


def center(mask):
    return np.argwhere(mask).mean(0)


def scenes(task, n=250):
    return make_items("scenes", "heldout", n, 0, tasks=[f"scenes.{task}"])


def parts(image, mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


def test_color_is_in_the_picture():
    several = 0
    for item in scenes("color"):
        found = masks(pixels(item))
        assert item.answer in found
        shape = next((shape for shape in FILL if shape in asked(item)), None)
        several += len(found) > 1
        assert shape is not None or len(found) == 1
        if shape is not None:
            assert FILL[shape][0] <= fill(found[item.answer]) <= FILL[shape][1]
    assert several > 60


def fill(mask):
    rows, columns = np.nonzero(mask)
    return mask.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))


def test_shape_has_its_outline():
    seen = Counter()
    for item in scenes("shape", 400):
        found = masks(pixels(item))
        color = next((color for color in found if color in asked(item)), None)
        assert color or len(found) == 1
        mask = found[color or next(iter(found))]
        low, high = FILL[item.answer]
        assert low <= fill(mask) <= high
        rows, _ = np.nonzero(mask)
        top, bottom = mask[rows.min()].sum(), mask[rows.max()].sum()
        if item.answer == "triangle":
            assert bottom > 3 * top
        if item.answer == "diamond":
            assert max(top, bottom) <= 4
        seen[item.answer] += 1
    assert set(seen) == set(FILL)


def test_count_is_the_number_of_connected_parts():
    seen = Counter()
    for item in scenes("count", 400):
        image = pixels(item)
        color = next((color for color in COLORS if color in asked(item)), None)
        found = masks(image)
        number = parts(image, found[color]) if color else sum(parts(image, mask) for mask in found.values())
        assert number == int(item.answer)
        seen[item.answer] += 1
    assert set(seen) == set("12345")
    assert max(seen.values()) < 0.35 * 400


def test_relation_is_where_the_centers_are():
    seen = Counter()
    for item in scenes("relation", 400):
        found = masks(pixels(item))
        text = asked(item)
        first, second = sorted(found, key=text.index)
        down, across = center(found[first]) - center(found[second])
        side = ("right" if across > 0 else "left") if abs(across) > abs(down) else ("below" if down > 0 else "above")
        assert item.answer == side
        seen[side] += 1
    assert set(seen) == set(OPPOSITE)
    assert max(seen.values()) < 0.35 * 400


def test_caption_names_every_thing():
    for item in make_items("scenes", "train", 200, 0, tasks=["scenes.caption"]):
        text = item.content.segments[-1].text
        found = masks(pixels(item))
        assert {color for color in COLORS if color in text} == set(found)
        pair = [color for color in sorted(found, key=text.index)]
        if " of " in text or " above " in text or " below " in text:
            down, across = center(found[pair[0]]) - center(found[pair[1]])
            where = next(word for word in OPPOSITE if f" {word} " in text)
            assert {"left": -across, "right": across, "above": -down, "below": down}[where] > 0


def test_colors_and_backgrounds_are_far_apart():
    shades = [np.array(rgb) for rgb in [*COLORS.values(), *BACKGROUNDS.values()]]
    assert all(np.abs(a - b).sum() > 80 for i, a in enumerate(shades) for b in shades[:i])


def charts(task, n=40, split="heldout"):
    return make_items("charts", split, n, 0, tasks=[f"charts.{task}"])


def heights(item):
    """Value of each bar: its height in gridline distances of six pixels."""
    return {color: round(mask.any(1).sum() / 6) for color, mask in masks(pixels(item)).items()}


def test_bars_are_as_high_as_told():
    for item in charts("value"):
        bars = heights(item)
        color = next(color for color in COLORS if f" {color} " in asked(item))
        assert int(item.answer) == bars[color]
    for item in charts("tallest"):
        bars = heights(item)
        assert item.answer == max(bars, key=bars.__getitem__)
        assert len(bars) >= 2


def test_sum_states_both_values_and_ends_in_the_result():
    for item in charts("sum"):
        bars, text = heights(item), asked(item)
        a, b = sorted((color for color in bars if color in text), key=text.index)
        x, y = bars[a], bars[b]
        expected = f"{a.capitalize()} is {x}, {b} is {y}, so {x} + {y} = {x + y}."
        assert item.content.segments[-1].text == expected
        assert item.answer == str(x + y)


def test_largest_slice_covers_the_most():
    for item in charts("pie"):
        found = masks(pixels(item))
        assert item.answer == max(found, key=lambda color: found[color].sum())


def test_line_goes_where_its_points_are():
    seen = set()
    for item in charts("line", 60):
        points = {color: center(mask) for color, mask in masks(pixels(item)).items()}
        if item.answer in points:
            assert item.answer == min(points, key=lambda color: points[color][0])
        else:
            ordered = sorted(points.values(), key=lambda point: point[1])
            assert item.answer == ("up" if ordered[-1][0] < ordered[0][0] else "down")
        seen.add(item.answer)
    assert {"up", "down"} < seen


def test_a_chart_is_asked_about_twice_in_training_and_once_held_out():
    train, heldout = (make_items("charts", split, 60, 0) for split in ("train", "heldout"))
    number = [sum(segment.role == "assistant" for segment in item.content.segments) for item in train]
    assert set(number) <= {1, 2}
    assert number.count(2) > 40
    assert all(len(item.content.segments) == 3 for item in heldout)
    four = make_items("charts", "train", 20, 0, questions_per_image=4, tasks=["charts.value", "charts.sum"])
    assert max(sum(segment.role == "assistant" for segment in item.content.segments) for item in four) == 4


def test_one_canvas_leaves_nothing_of_the_chart_before():
    reused = Charts()
    for seed in range(12):
        assert reused.make(Random(seed), "train") == Charts().make(Random(seed), "train")


@pytest.mark.parametrize("side", [64, 256])
def test_rendered_text_is_whole_and_in_one_ink(side):
    for item in make_items("reading", "heldout", 80, 0, side=side):
        image = pixels(item)
        paper = tuple(image[0, 0])
        assert paper in PAPERS
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border == image[0, 0]).all()
        ink = (np.abs(image.astype(int) - image[0, 0]).sum(-1) > 200).sum()
        assert ink > 0.008 * side * side


def test_equal_images_mean_equal_text():
    by_image = {}
    for item in make_items("reading", "train", 300, 0):
        assert by_image.setdefault(pixels(item).tobytes(), item.answer) == item.answer
    assert len(by_image) > 250
