"""The memory that the versions of a configuration need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfserving.errors import InvalidInputError
from tfserving.repository.memory_need import estimate_need, format_size, parse_size, total_memory
from tfserving.repository.selection import SelectedVersion


def version(directory: Path, number: int, size: int) -> SelectedVersion:
    """A version with a graph of 10 bytes and variables of `size` bytes."""
    path = directory / str(number)
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(bytes(10))
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(size))
    (path / "variables" / "variables.index").write_bytes(bytes(1000))
    return SelectedVersion("a", number, path)


def test_adds_graphs_and_variables_and_counts_the_largest_version_twice(tmp_path: Path) -> None:
    small, large = version(tmp_path, 1, 100), version(tmp_path, 2, 300)
    need = estimate_need([small, large])
    assert (need.serving, need.largest, need.largest_size, need.updating) == (420, large, 310, 730)


def test_needs_nothing_without_versions() -> None:
    assert estimate_need([]).updating == 0


def test_reads_the_memory_of_this_machine() -> None:
    assert 2**20 < total_memory() < 2**50


@pytest.mark.parametrize(
    ("text", "size"), [("10", 10), ("10b", 10), ("2k", 2048), ("3M", 3 * 2**20), ("4gb", 4 * 2**30)]
)
def test_reads_sizes_as_docker_does(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "g", "1.5g", "-1", "4t", "0"])
def test_rejects_what_is_not_a_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a valid size; give bytes, or a number with k, m"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**41, "2.0 TiB")]
)
def test_formats_sizes(size: int, text: str) -> None:
    assert format_size(size) == text
