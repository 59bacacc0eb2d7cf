"""The commands of README.md and of the guide, with the embedded server and a fake docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.checkout import CheckoutCopy, Output
from tests.docs.page_runner import (
    NEEDS_ENVOY,
    FakeDocker,
    compare_output,
    compare_session,
    make_kubectl,
    run_pages,
)
from tests.docs.pages import guide_pages, read_page


@pytest.mark.tensorflow
def test_commands_succeed_with_the_embedded_server(tmp_path: Path) -> None:
    fake = FakeDocker(tmp_path / "docker")
    path = [fake.bin, make_kubectl(tmp_path)]
    copy = CheckoutCopy(tmp_path, {"ENGINE": "embedded", "FAKE_WORLD": str(fake.world)}, path)
    try:
        run_pages(copy, fake, {}, NEEDS_ENVOY)
    finally:
        fake.close()
        copy.close()


@pytest.mark.parametrize("name", ["README.md", *guide_pages()])
def test_blocks_have_a_known_language(name: str) -> None:
    languages = {block.language for block in read_page(name).blocks}
    assert languages <= {"bash", "python", "text", "console", "textproto", "json"}


def test_readme_begins_with_quickstart_and_tests() -> None:
    commands = [block.text for block in read_page("README.md").blocks_in("bash")]
    assert commands[:2] == ["bash quickstart.sh\n", "bash run_tests.sh\n"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1\n", "a 1\n", True),
        ("a 1\n", "a 2\n", False),
        ("a …\nb\n", "a anything\nb\n", True),
        ("a …\nb\n", "a anything\nc\n", False),
        ("[[…]]\n", "[[1.5, 2.5]]\n", True),
        ("a\n", "a\nb\n", False),
    ],
)
def test_compare_output_detects_differences(shown: str, printed: str, same: bool) -> None:
    if same:
        compare_output(shown, printed)
    else:
        with pytest.raises(AssertionError):
            compare_output(shown, printed)


def test_compare_session_ignores_numbers_and_the_engine() -> None:
    output = Output("[1/5] engine\n  docker: answers\n gRPC  0.98  12.5 ms\n[[1.  , 0.25]]\n", "a note\n")
    session = "$ bash quickstart.sh\n[1/5] engine\n  embedded: x\n...\n gRPC 0.99 7 ms\na note\n ## \n"
    session += "[[9.5e-01, 0.   ]]\n"
    compare_session(session, output)
    with pytest.raises(AssertionError):
        compare_session("[1/5] engines\n", output)
