"""Scenes of handwritten digits: one to three instances of ONE class among pieces of other digits.

A picture whose every instance of the explained class is known, box and all, is what a class
activation map can be judged by: it should find all of them and none of the clutter. Digits are
scikit-learn's ``load_digits`` (1,797 8x8 scans of real handwriting), brighter than the ground. A
digit image belongs to the training or to the test scenes, never to both; the data set does not
name its writers, so the same hand may occur in both.
"""

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

SIZE = 64
DIGIT_SIZES = (16, 18, 20)
MAX_INSTANCES = 3
INK = 0.25  # what counts as ink for a box: the blank margin of a scan is not the digit

Subset = Literal["train", "test"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


class Scenes(NamedTuple):
    """``n`` scenes. A box is (row0, col0, row1, col1), ends excluded; -1 where no instance is."""

    images: NDArray[np.uint8]
    labels: Ints
    boxes: Ints
    counts: Ints


def make_scenes(count: int, seed: int, split: Subset = "train") -> Scenes:
    """Draw scenes: images ``[n, 64, 64]``, labels ``[n]``, boxes ``[n, 3, 4]``, counts ``[n]``.

    Scene ``i`` depends on ``(seed, split, i)`` alone: a longer list starts with the shorter one.
    """
    drawn = [_scene(seed, split, index) for index in range(count)]
    boxes = np.full((count, MAX_INSTANCES, 4), -1, np.int32)
    for row, (_, _, found) in zip(boxes, drawn, strict=True):
        row[: len(found)] = found
    return Scenes(
        images=np.array([image for image, _, _ in drawn], np.uint8).reshape(-1, SIZE, SIZE),
        labels=np.array([label for _, label, _ in drawn], np.int32),
        boxes=boxes,
        counts=np.array([len(found) for _, _, found in drawn], np.int32),
    )


@cache
def digit_indices(split: Subset) -> Ints:
    """Which images of ``load_digits`` the split may use: a fixed quarter is kept for the test."""
    order = np.random.default_rng(0).permutation(len(_digits()[1])).astype(np.int32)
    held_out = len(order) // 4
    return np.sort(order[:held_out] if split == "test" else order[held_out:])


def _scene(seed: int, split: Subset, index: int) -> tuple[NDArray[np.uint8], int, list]:
    rng = np.random.default_rng([seed, int(split == "test"), index])
    label = int(rng.integers(10))
    pool = digit_indices(split)
    same = _digits()[1][pool] == label
    canvas, taken = _ground(rng), np.zeros((SIZE, SIZE), bool)
    boxes = []
    # No two tiles of 20 can block a third: it has 45 x 45 places, each tile bars at most 39 x 39
    # of them, hence one corner of the four at most.
    for digit in rng.choice(pool[same], int(rng.integers(1, MAX_INSTANCES + 1)), replace=False):
        ink = _ink(int(digit), int(rng.choice(DIGIT_SIZES)))
        place = _paint(rng, canvas, taken, ink, _places(taken, ink))
        shows = np.argwhere(ink > INK) + place
        boxes.append([*shows.min(0), *(shows.max(0) + 1)])
    for digit in rng.choice(pool[~same], int(rng.integers(2, 6)), replace=False):
        ink = _piece(rng, _ink(int(digit), int(rng.choice(DIGIT_SIZES))))
        if len(places := _places(taken, ink)):
            _paint(rng, canvas, taken, ink, places)
    canvas += rng.normal(0, rng.uniform(0.01, 0.08), canvas.shape)
    return np.round(255 * canvas.clip(0, 1)).astype(np.uint8), label, boxes


def _paint(
    rng: np.random.Generator, canvas: Floats, taken: Mask, ink: Floats, places: Places
) -> Places:
    """Blend the ink into one of the places, in a grey of its own; returns the place."""
    row, col = place = places[rng.integers(len(places))]
    window = np.s_[row : row + len(ink), col : col + ink.shape[1]]
    canvas[window] += ink * (rng.uniform(0.5, 1.0) - canvas[window])
    taken[window] = True
    return place


def _places(taken: Mask, ink: Floats) -> Places:
    """Upper left corners ``[n, 2]`` where nothing under the ink is taken, by one table of sums."""
    height, width = ink.shape
    total = np.pad(taken.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = (
        total[height:, width:]
        - total[:-height, width:]
        - total[height:, :-width]
        + total[:-height, :-width]
    )
    return np.argwhere(inside == 0)


def _piece(rng: np.random.Generator, ink: Floats) -> Floats:
    """A half or a quarter of a digit: strokes of handwriting that are no digit."""
    half = len(ink) // 2
    kept = [np.s_[:half], np.s_[half:]]
    rows, cols = kept[rng.integers(2)], kept[rng.integers(2)]
    return ink[[(rows, np.s_[:]), (np.s_[:], cols), (rows, cols)][rng.integers(3)]]


def _ground(rng: np.random.Generator) -> Floats:
    """A smooth ramp between two dark greys, in any direction: ``[64, 64]``."""
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.linspace(-0.5, 0.5, SIZE)
    ramp = np.cos(angle) * grid[:, None] + np.sin(angle) * grid[None, :]
    return (rng.uniform(0.08, 0.25) + rng.uniform(0, 0.15) * ramp).astype(np.float32)


@cache
def _ink(digit: int, size: int) -> Floats:
    """One scan, enlarged: ``[size, size]``, 0 where the page shows and 1 where the ink is full."""
    scan = Image.fromarray(_digits()[0][digit])
    return np.asarray(scan.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


@cache
def _digits() -> tuple[Floats, Ints]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8) / 16).astype(np.float32), labels.astype(np.int32)
