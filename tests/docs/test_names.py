"""What the documentation names is there: variables with their defaults, flags, files, modules, links."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache

import grpc
import pytest
from pages import ROOT, Page, settings

from tfserving.repository import config as models_config
from tfserving.server.core.servable_state import State
from tfserving.server.flags import FLAGS

PAGES = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
READMES = [name for name in PAGES if name.startswith("README")]

DOORS = ("quickstart.sh", "build.sh", "build_ensemble.sh", "run_tf_serving.sh", "run_tests.sh")
COMMANDS = {
    **{f"bash {door}": ["bash", door, "--help"] for door in DOORS},
    "python export_saved_model.py": [sys.executable, "export_saved_model.py", "--help"],
    "python tf_rpc_client.py": [sys.executable, "tf_rpc_client.py", "--help"],
    **{
        f"python -m tfserving.repository {name}": [
            sys.executable, "-m", "tfserving.repository", name, "--help",
        ]
        for name in ("check", "plan", "format", "versions", "next-version", "signature")
    },
    **{
        f"python -m {name}": [sys.executable, "-m", name, "--help"]
        for name in ("benchmarks.client", "benchmarks.server", "tests.soak")
    },
}  # fmt: skip

# Words in capitals that are no variables: what stands for a value, and what stands for a protocol.
NO_VARIABLES = {"SOURCE", "NAME", "VERSION", "FILE", "RENAME_NOREPLACE"}
NO_VARIABLES |= {code.name for code in grpc.StatusCode} | {state.name for state in State}
# Of CUDA and TensorFlow.
FOREIGN_VARIABLES = {"CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL"}
# In tf_rpc_client.py, for those who edit.
EDITED = {"RPC_ADDRESS", "REST_ADDRESS"}
FOREIGN_FLAGS = {"--init", "--check"}


@cache
def page(name: str) -> Page:
    return Page(name)


@cache
def variables() -> set[str]:
    """Everything that a script, the image or a test takes from the environment."""
    scripts = [*ROOT.glob("*.sh"), *(ROOT / "lib").glob("*.sh"), ROOT / ".ci" / "run"]
    found = {name for path in scripts for name in re.findall(r'^: "\$\{([A-Z_]+):=', path.read_text(), re.M)}
    tests = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    found |= {name for text in tests for name in re.findall(r'os\.environ\.get\("(TFSERVING_\w+)"', text)}
    return found | settings().keys() | {"IMAGE_NAME"}


@cache
def help_of(command: str) -> str:
    done = subprocess.run(COMMANDS[command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@cache
def own_flags() -> set[str]:
    return {flag for command in COMMANDS for flag in flags_in(help_of(command))} | server_flags()


def server_flags() -> set[str]:
    return {f"--{flag.name}" for flag in FLAGS} | {"--help"}


def flags_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def code(name: str) -> list[str]:
    """Inline code and blocks of commands."""
    return page(name).spans + [block.text for block in page(name).of("bash")]


def commands(name: str) -> list[list[str]]:
    """The words of every command line in the bash blocks."""
    found = []
    for block in page(name).of("bash"):
        for line in re.split(r"\n|&&|;|\| ", block.text.replace("\\\n", " ")):
            found.append(shlex.split(line, comments=True))
    return [words for words in found if words]


def without_assignments(words: list[str]) -> list[str]:
    while words and re.match(r"[A-Z_]+=|until$|do$", words[0]):
        words = words[1:]
    return words


@pytest.mark.parametrize("name", PAGES)
def test_variables_exist(name: str) -> None:
    assigned = {variable for text in code(name) for variable in re.findall(r"\b([A-Z][A-Z_]+)=", text)}
    alone = {span for span in page(name).spans if re.fullmatch(r"[A-Z][A-Z_]{2,}", span)} - NO_VARIABLES
    assert (assigned | alone) - variables() - FOREIGN_VARIABLES - EDITED - {"OLD"} == set()


@pytest.mark.parametrize("name", READMES)
def test_the_table_of_variables_is_that_of_the_scripts(name: str) -> None:
    table = page(name).table("`MODE`")
    rows = {key.strip("`"): cells for key, cells in table.items() if key.startswith("`")}
    assert rows.keys() == settings().keys() | {"IMAGE_NAME"}
    for variable, default in settings().items():
        shown = default.replace("$ROOT/", "").replace("$MODELS_DIR", "MODELS_DIR")
        assert rows[variable][0] == (f"`{shown}`" if shown else ""), variable
    letters = {"B": "build.sh", "E": "build_ensemble.sh", "R": "run_tf_serving.sh"}
    for variable, row in rows.items():
        users = {
            letter for letter, door in letters.items() if f"${{{variable}:=" in (ROOT / door).read_text()
        }
        assert set(row[1].split()) == users, variable


def test_the_default_images_are_named_after_the_model() -> None:
    text = (ROOT / "lib" / "settings.sh").read_text()
    assert "setting IMAGE_NAME tfserving-ensemble" in text
    assert 'setting IMAGE_NAME "tfserving-$model"' in text


@pytest.mark.parametrize("name", PAGES)
def test_flags_of_commands_exist(name: str) -> None:
    for words in commands(name):
        words = without_assignments(words)
        given, _, for_server = " ".join(words).partition(" -- ")
        command = next((known for known in COMMANDS if given.startswith(known)), None)
        if command and command != "bash run_tests.sh":  # whose arguments are pytest's
            assert set(flags_in(given)) <= {*flags_in(help_of(command)), "--help"}, given
            assert set(flags_in(for_server)) <= server_flags(), given


@pytest.mark.parametrize("name", PAGES)
def test_flags_in_the_text_exist(name: str) -> None:
    flags = {flag for span in page(name).spans if not span.startswith("docker ") for flag in flags_in(span)}
    assert flags - own_flags() - FOREIGN_FLAGS == set()


@pytest.mark.parametrize("name", PAGES)
def test_files_exist(name: str) -> None:
    pattern = re.compile(
        r"(?<![\w/.$:{-])((?:\.ci|lib|tfserving|tests|docs|deploy|examples|models|wire|server|client|export|repository)"
        r"/[\w./-]*|[\w./-]+\.(?:sh|py|md|toml|txt|config|proto|pb))(?![\w*])"
    )
    for text in code(name):
        text = text.replace("MODELS_DIR/", "models/")
        if text.startswith(("http", "/", "tensorflow/")):
            continue
        made = re.findall(r">(\S+)", text)
        for found in pattern.findall(text):
            assert found in made or exists(found.rstrip(".")), f"{found} in {text!r}"


def exists(name: str) -> bool:
    """Whether the repository has the file, or keeps a place for it that git ignores."""
    if re.search(r"NAME|VERSION", name) or name == "models.config":  # which users have of their own
        return True
    # Pages about the package leave out its name.
    if (ROOT / name).exists() or (ROOT / "tfserving" / name).exists() or in_package(name):
        return True
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT)
    return ignored.returncode == 0


def in_package(name: str) -> bool:
    return "/" not in name and any((ROOT / "tfserving").rglob(name))


@pytest.mark.parametrize("name", PAGES)
def test_modules_exist(name: str) -> None:
    for text in code(name):
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in page(name).links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page(name).path.parent / path).resolve() if path else page(name).path
        assert target.exists(), link
        if anchor:
            assert anchor in page(str(target.relative_to(ROOT))).anchors, link


@pytest.mark.parametrize("name", READMES)
def test_configurations_parse(name: str) -> None:
    blocks = page(name).of("textproto")
    assert blocks
    for block in blocks:
        if block.text.startswith("config"):
            models = [block.text]
        else:  # fields of a model: a policy a line, or labels together
            lines = block.text.splitlines()
            fields = lines if block.text.startswith("model_version_policy") else [block.text]
            base = 'name: "x" base_path: "/models/x" model_platform: "tensorflow"'
            models = [f"config {{ {base} {field} }}" for field in fields]
        for model in models:
            models_config.parse(f"model_config_list {{ {model} }}")


def test_the_shipped_config_is_what_the_readme_shows() -> None:
    shipped = re.sub(r"\s+", " ", (ROOT / "models" / "models.config").read_text())
    for block in page("README.md").of("textproto"):
        for line in block.text.splitlines():
            assert re.sub(r"\s+", " ", line.strip()) in shipped, line


# What tensorflow_model_server, gRPC and Docker say.
FOREIGN_MESSAGES = (
    "Expected model … to have an absolute path or URI",
    "RESOURCE_EXHAUSTED: Server Threadpool Exhausted",
    "RESOURCE_EXHAUSTED: … message larger than max (… vs. 4194304)",
    "docker stop",
)


@pytest.mark.parametrize("name", READMES)
def test_symptoms_are_what_the_toolkit_says(name: str) -> None:
    code = [*ROOT.glob("*.sh"), *(ROOT / "lib").glob("*.sh"), *(ROOT / "tfserving").rglob("*.py")]
    said = " ".join(path.read_text() for path in code)
    said = re.sub(r'"\s*\\?\s*f?"|\$\{?\w+\}?|\{[^{}\s]*\}', "", " ".join(said.split()))
    for symptom in page(name).table("`Servable not found for request`"):
        for span in re.findall(r"`([^`]+)`", symptom):
            parts = re.split(r"…|=0,|\d+|float32 .*", span) if span not in FOREIGN_MESSAGES else []
            for part in parts:
                assert part.strip(" :=") in said, part


def test_every_door_is_in_the_readme() -> None:
    doors = [path.name for path in ROOT.iterdir() if path.suffix in (".sh", ".py")]
    for door in doors:
        assert door in page("README.md").text, door


def test_every_decision_is_listed() -> None:
    directory = ROOT / "docs" / "decisions"
    files = {path.name for path in directory.glob("0*.md")}
    assert set(page("docs/decisions/README.md").links) == files
    for number, name in enumerate(sorted(files), 1):
        assert name.startswith(f"{number:04}-")
        title = page(f"docs/decisions/{name}").headings[0][1]
        assert title.split(" ", 1)[0] == name[:4]
        assert title.split(" ", 1)[1] in page("docs/decisions/README.md").text


def test_the_chinese_readme_has_the_same_commands_and_outputs() -> None:
    english, chinese = page("README.md"), page("README.zh-CN.md")
    for languages in (("bash", "python"), ("console", "textproto"), ("text",)):
        ours = [(block.language, block.text) for block in english.of(*languages)]
        theirs = [(block.language, block.text) for block in chinese.of(*languages)]
        if languages == ("text",):  # the picture has words in it
            ours, theirs = ours[1:], theirs[1:]
        assert ours == theirs


def test_the_chinese_readme_has_the_same_parts() -> None:
    english, chinese = page("README.md"), page("README.zh-CN.md")
    assert [level for level, _ in english.headings] == [level for level, _ in chinese.headings]
    assert english.prose.count("\n|") == chinese.prose.count("\n|")
    assert english.prose.count("\n- ") == chinese.prose.count("\n- ")
    files = [[link for link in one.links if not link.startswith("#")] for one in (english, chinese)]
    assert sorted(files[0][1:]) == sorted(files[1][1:])  # the first leads to the other language
