"""What the documentation names exists: variables, defaults, flags, files, modules, links and messages."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache

import grpc
import pytest

from tests.docs.pages import ROOT, guide_pages, read_page, settings
from tfserving.repository import config as models_config
from tfserving.server.core.servable_state import State
from tfserving.server.flags import FLAGS

PAGES = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
SETTINGS_PAGES = [name for name in PAGES if name.startswith("docs/guide/settings.")]
TROUBLESHOOTING_PAGES = [name for name in PAGES if name.startswith("docs/guide/troubleshooting.")]
CONFIG_PAGES = [name for name in PAGES if name.startswith("docs/guide/many-models.")]

SCRIPTS = ("quickstart.sh", "build.sh", "build_ensemble.sh", "run_tf_serving.sh", "run_tests.sh")
OTHER_SCRIPTS = ("docker/embedded/build.sh", "deploy/gateway/gateway.sh", "deploy/swarm/stack.sh")
SUBCOMMANDS = ("call", "bench", "tune", "export", "serve", "check", "format", "select", "versions", "show")
SUBCOMMANDS += ("publish", "verify", "warmup", "compare")
SUBCOMMANDS += ("promote", "rollback", "canary", "label", "add", "remove")
SUBCOMMANDS += ("diff", "status", "watch", "history", "prune")
SUBCOMMANDS += ("clients add", "clients list", "clients revoke", "traffic show", "traffic set")
# Those whose options are on the page about exports.
EXPORT_COMMANDS = ("export", "publish", "verify", "warmup", "compare")
COMMANDS = {
    **{f"bash {script}": ["bash", script, "--help"] for script in (*SCRIPTS, *OTHER_SCRIPTS)},
    "python export_saved_model.py": [sys.executable, "export_saved_model.py", "--help"],
    "python tf_rpc_client.py": [sys.executable, "tf_rpc_client.py", "--help"],
    **{
        f"tfserving {name}": [sys.executable, "-m", "tfserving", *name.split(), "--help"]
        for name in SUBCOMMANDS
    },
    **{
        f"python -m {name}": [sys.executable, "-m", name, "--help"]
        for name in (
            *(
                "benchmarks.client",
                "benchmarks.server",
                "benchmarks.capacity.replicas",
                "benchmarks.capacity",
                "benchmarks.load_generators",
                "benchmarks.gpu",
                "benchmarks.tune",
                "benchmarks.swaps",
            ),
            "tests.soak",
        )
    },
}

# Words in capitals that are not variables: placeholders, states, status codes.
NOT_VARIABLES = {"SOURCE", "NAME", "VERSION", "FILE", "SERVER_FLAG", "PYTEST_ARGUMENT", "RENAME_NOREPLACE"}
NOT_VARIABLES |= {"RENAME_EXCHANGE"}
NOT_VARIABLES |= {"GROUP", "CLIENT", "TOKEN", "INPUT", "LABEL", "POLICY"}
# Columns of tables that commands print.
NOT_VARIABLES |= {"DEFAULT", "ERROR", "ERRORS", "SIZE", "CONFIG", "BEFORE", "AFTER", "RESULT"}
NOT_VARIABLES |= {"LARGEST", "MEAN", "OUTSIDE", "ARGMAX"}
NOT_VARIABLES |= {code.name for code in grpc.StatusCode} | {state.name for state in State}
# Of CUDA and TensorFlow, and of certificates.
FOREIGN_VARIABLES = {
    "CUDA_VISIBLE_DEVICES",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_XLA_FLAGS",
    "LC_ALL",
    "MALLOC_ARENA_MAX",
    "MODEL",
    "PORT",
    "CN",
}
# In tf_rpc_client.py, for users to edit.
EDITABLE_CONSTANTS = {"RPC_ADDRESS", "REST_ADDRESS"}
FOREIGN_FLAGS = {
    "--init",
    "--user",
    "--pids-limit",
    "--output-file",
    "--check",
    "--platform",
    "--strict",
    "--ipc",
    "--concurrency",
    "--tf_xla_auto_jit",
    "--tf_xla_cpu_global_jit",
}

# Files that users or commands write.
USER_FILES = ("models.config", "saved_model.pb", "batching.config")

# Messages of tensorflow_model_server, gRPC and Docker.
FOREIGN_MESSAGES = (
    "Expected model … to have an absolute path or URI",
    "File system scheme 's3' not implemented",
    "No OpKernel was registered to support Op 'PyFunc'",
    "Op type not registered 'PyFunc'",
    "RESOURCE_EXHAUSTED: Server Threadpool Exhausted",
    "RESOURCE_EXHAUSTED: … message larger than max (… vs. 4194304)",
    "UNAVAILABLE: … Socket closed",
    "XLA compilation disabled",
    "docker stop",
    "permission denied while trying to connect to the Docker daemon socket",
)


@cache
def variables() -> set[str]:
    """All variables that a script, the image or a test reads from the environment."""
    scripts = [*ROOT.glob("*.sh"), *(ROOT / "lib").glob("*.sh"), *(ROOT / "docker").rglob("*.sh")]
    scripts += [*(ROOT / "deploy").rglob("*.sh"), ROOT / ".ci" / "run"]
    found = {name for path in scripts for name in re.findall(r'^: "\$\{([A-Z_]+):=', path.read_text(), re.M)}
    found |= image_variables().keys()
    tests = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    found |= {name for text in tests for name in re.findall(r'os\.environ\.get\("(TFSERVING_\w+)"', text)}
    found |= set(re.findall(r"\$(TFSERVING_\w+)", help_of("tfserving call")))
    return found | settings().keys() | {"IMAGE_NAME"}


@cache
def image_variables() -> dict[str, str]:
    """The variables that the Dockerfile sets in the image, and their values."""
    return dict(re.findall(r'^(?:ENV|   ) ([A-Z_]+)="([^"]*)"', (ROOT / "Dockerfile").read_text(), re.M))


@cache
def help_of(command: str) -> str:
    done = subprocess.run(COMMANDS[command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@cache
def known_flags() -> set[str]:
    return {flag for command in COMMANDS for flag in flags_in(help_of(command))} | server_flags()


def server_flags() -> set[str]:
    return {f"--{flag.name}" for flag in FLAGS} | {"--help", "--version"}


def flags_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", text)


def code_in(name: str) -> list[str]:
    """Inline code and blocks of commands."""
    page = read_page(name)
    return page.spans + [block.text for block in page.blocks_in("bash")]


def command_lines(name: str) -> list[list[str]]:
    """The words of every command in the bash blocks, without variables and loops in front."""
    found = []
    for block in read_page(name).blocks_in("bash"):
        text = re.sub(r"<<'END'\n.*?\nEND\n", "\n", block.text, flags=re.S).replace("\\\n", " ")
        text = re.sub(r"'[^']*'", lambda match: match[0].replace("\n", " "), text)
        for line in re.split(r"\n|&&|;|\| ", text):
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=|until$|do$", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_variables_exist(name: str) -> None:
    assigned = {variable for text in code_in(name) for variable in re.findall(r"\b([A-Z][A-Z_]+)=", text)}
    alone = {span for span in read_page(name).spans if re.fullmatch(r"[A-Z][A-Z_]{2,}", span)}
    unknown = (assigned | alone) - variables() - NOT_VARIABLES
    assert unknown - FOREIGN_VARIABLES - EDITABLE_CONSTANTS - {"OLD"} == set()


@pytest.mark.parametrize("name", SETTINGS_PAGES)
def test_the_table_of_variables_matches_the_scripts(name: str) -> None:
    table = read_page(name).table_with("`MODE`")
    rows = {key.strip("`"): cells for key, cells in table.items() if key.startswith("`")}
    scripts = {"build": "build.sh", "ensemble": "build_ensemble.sh", "run": "run_tf_serving.sh"}
    shared = {name for name in settings() if any(uses(script, name) for script in scripts.values())}
    assert rows.keys() == shared | {"IMAGE_NAME"}
    others = {key.strip("`"): cells for key, cells in read_page(name).table_with("`VENV`").items()}
    for variable, default in settings().items():
        shown = default.replace("$ROOT/", "").replace("$MODELS_DIR", "MODELS_DIR")
        assert (others | rows)[variable][0] == (f"`{shown}`" if shown else ""), variable
    for variable, row in rows.items():
        users = {word for word, script in scripts.items() if uses(script, variable)}
        assert set(row[1].split(", ")) == users, variable


@pytest.mark.parametrize("name", SETTINGS_PAGES)
def test_the_table_of_the_image_matches_the_dockerfile_and_its_scripts(name: str) -> None:
    rows = read_page(name).table_with("`MODEL_BASE_PATH`")
    shown = {key.strip("`"): cells[0] for key, cells in rows.items() if key.startswith("`")}
    scripts = "".join(path.read_text() for path in (ROOT / "docker").glob("*.sh"))
    defaults = image_variables() | dict(re.findall(r'^: "\$\{([A-Z_]+):=(.*)\}"$', scripts, re.M))
    assert shown.keys() == defaults.keys()
    for variable, default in defaults.items():
        assert "$" in default or shown[variable] == (f"`{default}`" if default else ""), variable


@pytest.mark.parametrize("name", SETTINGS_PAGES)
def test_every_extra_of_the_package_is_listed(name: str) -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2]
    extras = set(re.findall(r"^(\w+) = ", project.partition("\n\n")[0], re.M))
    assert set(re.findall(r"pip install '\.\[(\w+)\]'", read_page(name).text)) == extras


@pytest.mark.parametrize("name", SETTINGS_PAGES)
def test_every_variable_of_a_script_is_listed_for_it(name: str) -> None:
    table = read_page(name).table_with("`MODE`").keys()
    rows = [row for rows in read_page(name).tables for row in rows]
    for script in ("quickstart.sh", "run_tests.sh", "docker/embedded/build.sh"):
        own = {row[0].strip("`") for row in rows if len(row) == 4 and script in row[2].split(", ")}
        text = (ROOT / script).read_text()
        needed = set(re.findall(r'^: "\$\{([A-Z_]+):=', text, re.M))
        if script == "quickstart.sh":  # for which the first table holds as well
            needed -= {key.strip("`") for key in table}
            own -= {key.strip("`") for key in table}
        assert own == needed, script


@pytest.mark.parametrize("name", ["docs/guide/gateway.md", "docs/guide/gateway.zh.md"])
def test_the_table_of_the_gateway_matches_its_script(name: str) -> None:
    rows = {key: cells[0] for key, cells in read_page(name).table_with("`GATEWAY_NAME`").items()}
    text = (ROOT / "deploy" / "gateway" / "gateway.sh").read_text()
    defaults = dict(re.findall(r'^: "\$\{([A-Z_]+):=(.*?)\}"', text, re.M))
    assert {variable for key in rows for variable in re.findall(r"`([A-Z_]+)`", key)} == defaults.keys()
    for variable, default in defaults.items():
        if default:
            assert rows[f"`{variable}`"] == f"`{default}`", variable


def uses(script: str, variable: str) -> bool:
    return f"${{{variable}:=" in (ROOT / script).read_text()


@pytest.mark.parametrize("name", SETTINGS_PAGES)
def test_every_option_of_a_command_is_documented(name: str) -> None:
    pages = {f"tfserving {command}": name.replace("settings", "export") for command in EXPORT_COMMANDS}
    pages["tfserving bench"] = name.replace("settings", "measure")
    pages["tfserving tune"] = name.replace("settings", "tune")
    for command in COMMANDS:
        if command.startswith(("bash", "tfserving")) and command != "tfserving serve":
            text = read_page(pages.get(command, name)).text
            missing = {flag for flag in flags_in(help_of(command)) if flag not in text} - {"--help"}
            assert missing == set(), command
            assert command.removeprefix("bash ") in text


def test_default_image_names_contain_the_model_name() -> None:
    text = (ROOT / "lib" / "settings.sh").read_text()
    assert "setting IMAGE_NAME tfserving-ensemble" in text
    assert 'setting IMAGE_NAME "tfserving-$MODEL_NAME"' in text


@pytest.mark.parametrize("name", PAGES)
def test_flags_in_commands_exist(name: str) -> None:
    for words in command_lines(name):
        given, _, for_server = " ".join(words).partition(" -- ")
        command = next((known for known in COMMANDS if given.startswith(known)), None)
        if command and command != "bash run_tests.sh":  # whose arguments are pytest's
            assert set(flags_in(given)) <= {*flags_in(help_of(command)), "--help"}, given
            assert set(flags_in(for_server)) <= server_flags(), given


@pytest.mark.parametrize("name", PAGES)
def test_flags_in_the_text_exist(name: str) -> None:
    spans = [span for span in read_page(name).spans if not span.startswith("docker ")]
    flags = {flag for span in spans for flag in flags_in(span)}
    assert flags - known_flags() - FOREIGN_FLAGS == set()


@pytest.mark.parametrize("name", PAGES)
def test_files_exist(name: str) -> None:
    folders = r"\.ci|lib|tfserving|tests|docs|deploy|docker|examples|models|wire|server|client|cli|export"
    folders += "|repository"
    pattern = re.compile(
        rf"(?<![\w/.$:{{-])((?:{folders})/[\w./-]*|[\w./-]+\.(?:sh|py|md|toml|txt|config|proto|pb))(?!\.?[\w*])"
    )
    for text in code_in(name):
        text = text.replace("MODELS_DIR/", "models/")
        if text.startswith(("http", "/", "tensorflow/")):
            continue
        created = re.findall(r">(\S+)", text)
        for found in pattern.findall(text):
            is_outside = found.startswith("/")
            assert is_outside or found in created or exists(found.rstrip(".")), f"{found} in {text!r}"


def exists(name: str) -> bool:
    """Whether the repository has the file, or a place for it that git ignores."""
    if re.search(r"NAME|VERSION", name) or name in USER_FILES:
        return True
    # Pages about the package omit its name, those about the embedded server `server`, those about a folder of
    # deploy/ its name.
    places = (ROOT, ROOT / "tfserving", ROOT / "tfserving" / "server", *(ROOT / "deploy").iterdir())
    if any((place / name).exists() for place in places) or in_package(name) or in_deploy(name):
        return True
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT)
    return ignored.returncode == 0


def in_deploy(name: str) -> bool:
    return "/" not in name and any((ROOT / "deploy").rglob(name))


def in_package(name: str) -> bool:
    return "/" not in name and any((ROOT / "tfserving").rglob(name))


@pytest.mark.parametrize("name", PAGES)
def test_modules_exist(name: str) -> None:
    for text in code_in(name):
        for module in re.findall(r"python -m ([\w.]+)", text):
            assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_exist(name: str) -> None:
    page = read_page(name)
    for link in page.links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in read_page(str(target.relative_to(ROOT))).anchors, link


@pytest.mark.parametrize("name", CONFIG_PAGES)
def test_configs_parse(name: str) -> None:
    blocks = read_page(name).blocks_in("textproto")
    assert blocks
    for block in blocks:
        if block.text.startswith("model_config_list"):
            models_config.parse_config(block.text)
            continue
        # Fields of a model, as the text above the block says: one policy per line, or several labels.
        fields = block.text.splitlines() if block.text.startswith("model_version_policy") else [block.text]
        base = 'name: "x" base_path: "/models/x" model_platform: "tensorflow"'
        for field in fields:
            models_config.parse_config(f"model_config_list {{ config {{ {base} {field} }} }}")


def test_models_config_contains_what_the_guide_shows() -> None:
    shipped = re.sub(r"\s+", " ", (ROOT / "models" / "models.config").read_text())
    for block in read_page("docs/guide/many-models.md").blocks_in("textproto"):
        for line in block.text.splitlines():
            assert re.sub(r"\s+", " ", line.strip()) in shipped, line


@pytest.mark.parametrize("name", TROUBLESHOOTING_PAGES)
def test_symptoms_are_messages_in_the_code(name: str) -> None:
    files = [*ROOT.glob("*.sh"), *(ROOT / "lib").glob("*.sh"), *(ROOT / "docker").rglob("*.sh")]
    files += (ROOT / "tfserving").rglob("*.py")
    messages = " ".join(path.read_text() for path in files)
    messages = re.sub(r'"\s*\\?\s*f?"|\$\{?\w+\}?|\{[^{}\s]*\}', "", " ".join(messages.split()))
    symptoms = [row[0] for table in read_page(name).tables for row in table[2:]]
    assert symptoms
    for symptom in symptoms:
        for span in re.findall(r"`([^`]+)`", symptom):
            parts = re.split(r"…|=0,|\d+|float32 .*", span) if span not in FOREIGN_MESSAGES else []
            for part in parts:
                assert part.strip(" :=") in messages, part


def test_every_entry_point_is_documented() -> None:
    text = "".join(read_page(name).text for name in ["README.md", *guide_pages()])
    for path in ROOT.iterdir():
        if path.suffix in (".sh", ".py"):
            assert path.name in text, path.name


def test_readme_links_every_page_of_the_guide() -> None:
    pages = {name for name in PAGES if name.startswith("docs/guide/") and not name.endswith(".zh.md")}
    assert set(guide_pages()) == pages


def test_readme_is_short() -> None:
    assert len(read_page("README.md").text.splitlines()) < 200


def test_every_decision_is_listed_with_its_title() -> None:
    directory = ROOT / "docs" / "decisions"
    files = {path.name for path in directory.glob("0*.md")}
    listing = read_page("docs/decisions/README.md")
    assert {link for link in listing.links if link.startswith("0")} == files
    for name in files:
        title = read_page(f"docs/decisions/{name}").headings[0][1]
        number, _, words = title.partition(" ")
        assert number == name[:4]
        assert words in listing.text
