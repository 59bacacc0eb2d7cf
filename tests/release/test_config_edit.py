"""Edits of models.config: the new text says what it should, and everything else stays byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfserving.errors import FailedPreconditionError, NotFoundError
from tfserving.release.config_edit import add_model, remove_label, remove_model, set_label, set_policy
from tfserving.repository.config import All, Latest, Specific, parse_config

ENTRY = 'name: "%s" base_path: "/models/%s" model_platform: "tensorflow"'
ONE_LINE = "model_config_list { config { " + ENTRY % ("a", "a") + " } }"
BLOCK = """\
# first
model_config_list {
  # about a
  config {
    name: "a"  # the name
    base_path: "/models/a";
    model_platform: "tensorflow",
    model_version_policy {
      # why these
      specific {
        versions: 1  # old
        versions: 2  # new
      }
    }
    version_labels { key: "s" value: 1 }  # stable
    version_labels { key: 'c', value: 2 }
  }
  # the end
}
# last
"""
LISTS = (
    "model_config_list { config: [ { "
    + ENTRY % ("a", "a")
    + " model_version_policy { specific { versions: [1, 2] } }"
    + ' version_labels: [ { key: "s" value: 1 }, { key: "c" value: 2 } ] }, { '
    + ENTRY % ("b", "b")
    + " } ] }"
)


def test_changes_the_numbers_of_a_policy():
    assert set_policy(BLOCK, "a", Specific((3, 4))) == BLOCK.replace("versions: 1", "versions: 3").replace(
        "versions: 2", "versions: 4"
    )


def test_adds_a_version_on_a_line_like_the_others():
    new = set_policy(BLOCK, "a", Specific((1, 2, 3)))
    assert [line.strip() for line in new.splitlines() if "versions:" in line][-1].startswith("versions: 3")
    assert new.replace("versions: 3", "").split() == BLOCK.split()


def test_removes_a_version_with_its_line_or_without():
    assert set_policy(LISTS, "a", Specific((2,))) == LISTS.replace("versions: [1, 2]", "versions: 2")
    one_line = set_policy(ONE_LINE, "a", Specific((1, 2)))
    assert set_policy(one_line, "a", Specific((1,))) == one_line.replace(" versions: 2", "")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (All(), "all {}"),
        (Latest(2), "latest { num_versions: 2 }"),
        (Specific((1, 3)), "specific { versions: 1 versions: 3 }"),
    ],
)
def test_adds_and_replaces_a_policy(policy, text):
    added = set_policy(ONE_LINE, "a", policy)
    assert added == ONE_LINE.replace(" } }", f" model_version_policy {{ {text} }} }} }}")
    assert set_policy(set_policy(ONE_LINE, "a", Latest(7)), "a", policy) == added


def test_moves_a_label():
    assert set_label(BLOCK, "a", "c", 1) == BLOCK.replace("value: 2", "value: 1")


def test_adds_a_label_on_a_line_of_its_own():
    new = set_label(BLOCK, "a", "n", 2)
    after = "    version_labels { key: 'c', value: 2 }\n"
    assert new == BLOCK.replace(after, after + '    version_labels { key: "n" value: 2 }\n')


def test_removes_a_label_with_its_line():
    assert remove_label(BLOCK, "a", "c") == BLOCK.replace("    version_labels { key: 'c', value: 2 }\n", "")
    assert parse_config(remove_label(LISTS, "a", "c")).models[0].labels == {"s": 1}


def test_removing_an_added_label_or_model_restores_the_text():
    for text in (ONE_LINE, BLOCK, LISTS, BLOCK.replace("\n", "\r\n")):
        assert remove_label(set_label(text, "a", "new", 2), "a", "new") == text
        assert remove_model(add_model(text, "z", "/models/z", None), "z") == text


def test_adds_a_model_like_the_others():
    new = add_model(BLOCK, "z", "/models/z", Specific((1,)))
    assert parse_config(new).models[1].policy == Specific((1,))
    assert '\n  config {\n    name: "z"\n    base_path: "/models/z"\n' in new


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "model_config_list {}", "model_config_list: {\n  # none\n}\n"]
)
def test_adds_the_first_model(text):
    new = add_model(text, "z", "/models/z", None)
    assert [model.name for model in parse_config(new).models] == ["z"]
    assert set(text.split()) - {"{}"} <= set(new.split())


def test_reports_an_unknown_model_and_a_known_one():
    with pytest.raises(NotFoundError, match=r'no model "x" \(its models: a\)'):
        set_policy(ONE_LINE, "x", All())
    with pytest.raises(FailedPreconditionError, match="in the config already"):
        add_model(ONE_LINE, "a", "/models/a", None)


_SPACES = st.sampled_from([" ", "\n", "\n    ", "  # note\n  ", "\t", "\r\n"])
_NUMBERS = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def configs(draw):
    """A config with three models in random layout: the text of each, and the whole."""

    def space():
        return draw(_SPACES)

    def separator():
        return draw(st.sampled_from(["", ",", ";"]))

    entries = []
    for name in "abc":
        colon = draw(st.sampled_from(["", ":"]))
        parts = [f'name: "{name}"', f'base_path:{space()}"/models/{name}"', 'model_platform: "tensorflow"']
        if draw(st.booleans()):
            listed = " ".join(f"versions:{space()}{number}{separator()}" for number in draw(_NUMBERS))
            choice = draw(
                st.sampled_from(["latest { num_versions: 2 }", "all {}", f"specific {{ {listed} }}"])
            )
            parts.append(f"model_version_policy{colon} {{{space()}{choice}{space()}}}")
        for label in sorted(draw(st.sets(st.sampled_from(["s", "c", "x"])))):
            value = f"value:{space()}{draw(st.integers(0, 9))}"
            parts.append(f'version_labels{colon} {{ key: "{label}"{separator()} {value} }}')
        body = "".join(f"{space()}{part}{separator()}" for part in parts)
        entries.append(f"config{colon} {{{body}{space()}}}")
    between = space()
    return entries, f"# head\nmodel_config_list {{{between}{between.join(entries)}{between}}}\n"


@settings(max_examples=40)
@given(configs(), _NUMBERS, st.integers(0, 9), st.sampled_from(["s", "new"]))
def test_other_models_and_the_text_around_stay_in_any_layout(made, numbers, version, label):
    entries, text = made
    edited = {
        "policy": set_policy(text, "b", Specific(numbers)),
        "label": set_label(text, "b", label, version),
        "no label": remove_label(text, "b", "s"),
        "no model": remove_model(text, "b"),
        "more": add_model(text, "z", "/models/z", None),
    }
    for new in edited.values():
        assert new.startswith(text[: text.index(entries[0])] + entries[0])
        assert entries[2] in new
    assert edited["more"].replace(entries[1], "") != edited["more"]
    assert parse_config(edited["policy"]).models[1].policy == Specific(numbers)
    assert parse_config(edited["label"]).models[1].labels[label] == version
    assert "s" not in parse_config(edited["no label"]).models[1].labels
