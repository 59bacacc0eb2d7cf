"""Scans with their predicted digits, as text and as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.digits import Scans

SHADES = " .:-=+*#%@"
PER_ROW = 4


def print_scans(scans: Scans, digits: NDArray[Any], numbers: Sequence[int]) -> None:
    """Print the scans with these indices side by side, with the predicted digit below each."""
    for start in range(0, len(numbers), PER_ROW):
        row = numbers[start : start + PER_ROW]
        pictures = [to_text(scans.images[number]) for number in row]
        print()
        for lines in zip(*pictures, strict=True):
            print("  ".join(lines).rstrip())
        print("  ".join(f"{caption(scans, digits, number):^16}" for number in row).rstrip())


def to_text(image: NDArray[np.float32]) -> list[str]:
    """Return the lines of an image [h, w, 1] from 0 to 255; a pixel is two characters wide."""
    shades = (image[..., 0] / 256 * len(SHADES)).astype(int)
    return ["".join(2 * SHADES[shade] for shade in line) for line in shades]


def caption(scans: Scans, digits: NDArray[Any], number: int) -> str:
    predicted, label = int(digits[number]), int(scans.labels[number])
    return f"read: {predicted}" if predicted == label else f"read: {predicted}, is {label}"


def write_png(scans: Scans, digits: NDArray[Any], numbers: Sequence[int], path: Path) -> None:
    """Write the scans with these indices to a PNG, with the predicted digit above each."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(numbers) // PER_ROW)
    figure, axes = plt.subplots(
        rows, PER_ROW, figsize=(2 * PER_ROW, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, number in zip(axes.flat, numbers, strict=False):
        right = digits[number] == scans.labels[number]
        axis.imshow(scans.images[number, ..., 0], cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(caption(scans, digits, number), color="black" if right else "firebrick")
    figure.savefig(path, dpi=120)
    plt.close(figure)
