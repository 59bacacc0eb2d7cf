"""build.sh: an image with one model."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.saved_models import write_saved_model

ROOT = Path(__file__).parents[2]
BASE = "tensorflow/serving:2.20.0"


def context(checkout: Any) -> dict[str, str]:
    """The files in the context of the last build, with their modes."""
    root = checkout.world / "context"
    return {
        str(path.relative_to(root)): stat.filemode(path.lstat().st_mode)
        for path in sorted(root.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    }


def models_argument(command: list[str]) -> str:
    """The value of the build argument MODELS."""
    (models,) = [word for word in command if word.startswith("MODELS=")]
    return models.removeprefix("MODELS=")


def without_identity(command: list[str]) -> list[str]:
    """The arguments without the labels and the tag that record the time, the revision and the base image."""
    start = command.index("--tag") + 2
    assert command[start] == "--tag"
    assert [word.partition("=")[0] for word in command[start + 2 : start + 8]] == [
        *("--label", "org.opencontainers.image.version"),
        *("--label", "org.opencontainers.image.revision"),
        *("--label", "org.opencontainers.image.created"),
    ]
    rest = command[:start] + command[start + 8 :]
    base = [index for index, word in enumerate(rest) if word.startswith("tfserving.base.id=")]
    return [word for index, word in enumerate(rest) if index not in base and index + 1 not in base]


def labels(command: list[str]) -> dict[str, str]:
    """The OCI labels, without their prefix."""
    prefix = "org.opencontainers.image."
    pairs = [word.removeprefix(prefix).split("=", 1) for word in command if word.startswith(prefix)]
    return dict(pairs)


class TestIdentity:
    def test_labels_and_a_tag_record_version_revision_and_time(self, checkout: Any) -> None:
        checkout.add_version("digits", 1, 2)
        git = ["git", "-C", str(checkout.root), "-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        subprocess.run([*git, "add", "build.sh"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "x"], check=True)
        revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        command = checkout.run("build.sh", "--dry-run", IMAGE_NAME="host:5000/me/x:1").command
        found = labels(command)
        assert (found["version"], found["revision"]) == ("2", revision)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
        time = re.sub("[-:]", "", found["created"])
        tags = [command[i + 1] for i, word in enumerate(command) if word == "--tag"]
        assert tags == ["host:5000/me/x:1", f"host:5000/me/x:v2-{revision[:7]}-{time}"]

        with (checkout.root / "build.sh").open("a") as script:
            script.write("\n")
        command = checkout.run("build.sh", "--dry-run", MODEL_VERSIONS="1,2").command
        assert labels(command)["revision"] == f"{revision}-dirty"
        assert f"tfserving-digits:v1_2-{revision[:7]}-dirty-" in " ".join(command)

    def test_the_revision_is_unknown_outside_a_git_repository(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        command = checkout.run("build.sh", "--dry-run").command
        assert labels(command)["revision"] == "unknown"
        assert re.fullmatch(r"tfserving-digits:v1-\d{8}T\d{6}Z", command[command.index("--label") - 1])

    def test_many_versions_are_not_part_of_the_tag(self, checkout: Any) -> None:
        checkout.add_version("digits", *range(100))
        versions = ",".join(map(str, range(100)))
        command = checkout.run("build.sh", "--dry-run", MODEL_VERSIONS=versions).command
        assert labels(command)["version"] == versions
        assert re.fullmatch(r"tfserving-digits:\d{8}T\d{6}Z", command[command.index("--label") - 1])


class TestCommand:
    def test_passes_base_image_mode_and_model_to_docker_build(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        result = checkout.run("build.sh")
        assert (result.code, result.out) == (0, "")
        ((*command, directory),) = checkout.calls("build")
        assert without_identity(command) == [
            *("build", "--tag", "tfserving-digits"),
            *("--build-arg", f"TF_SERVING_IMAGE={BASE}"),
            *("--build-arg", "MODE=single"),
            *("--build-arg", "MODELS=digits:1"),
            *("--build-arg", "MODEL_NAME=digits"),
        ]
        assert Path(directory).parent == checkout.tmp

    def test_prints_the_next_command(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.add_version("flowers", 1)
        assert checkout.run("build.sh").err.endswith("next: bash run_tf_serving.sh\n")
        chosen = checkout.run("build.sh", MODEL_NAME="flowers", IMAGE_NAME="me/x:1", cwd=checkout.models).err
        command = f"MODEL_NAME=flowers IMAGE_NAME=me/x:1 bash {checkout.root}/run_tf_serving.sh"
        assert chosen.endswith(f"next: {command}\n")

    def test_dry_run_prints_the_command_and_runs_nothing(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        command = checkout.run("build.sh", "--dry-run").command
        assert checkout.calls() == []
        assert list(checkout.tmp.iterdir()) == []
        checkout.run("build.sh")
        built = without_identity(["docker", *checkout.calls("build")[0][:-1]])
        assert without_identity(command[:-1]) == built

    def test_settings_change_the_arguments(self, checkout: Any, tmp_path: Path) -> None:
        checkout.add_version("Flowers", 1)
        (tmp_path / "a b; $(touch x) 'c'").mkdir()
        checkout.models.rename(tmp_path / "a b; $(touch x) 'c'" / "m")
        command = checkout.run(
            "build.sh",
            "--dry-run",
            MODEL_NAME="Flowers",
            MODELS_DIR=str(tmp_path / "a b; $(touch x) 'c'" / "m"),
            TF_SERVING_IMAGE=f"{BASE}-gpu",
            DOCKER_ARGS="--pull --label 'a b'=\"c d\" --label e=$(id)",
        ).command
        assert command[:4] == ["docker", "build", "--tag", "tfserving-flowers"]
        assert f"TF_SERVING_IMAGE={BASE}-gpu" in command
        assert "MODEL_NAME=Flowers" in command
        assert command[-6:-1] == ["--pull", "--label", "a b=c d", "--label", "e=$(id)"]

    def test_a_relative_models_dir_starts_at_the_working_directory(
        self, checkout: Any, tmp_path: Path
    ) -> None:
        checkout.add_version("digits", 4)
        checkout.models.rename(tmp_path / "-models")
        command = checkout.run("build.sh", "--dry-run", MODELS_DIR="-models", cwd=tmp_path).command
        assert models_argument(command) == "digits:4"

    @pytest.mark.parametrize(("verbose", "shown"), [("", []), ("0", []), ("1", ["Step 1/1 : FROM scratch"])])
    def test_hides_the_output_of_docker_unless_verbose(
        self, checkout: Any, verbose: str, shown: list[str]
    ) -> None:
        checkout.add_version("digits", 1)
        result = checkout.run("build.sh", VERBOSE=verbose)
        first, *output, built, following = result.err.splitlines()
        assert (result.code, result.out) == (0, "")
        assert first == f"build.sh: building tfserving-digits from {BASE} with digits:1"
        assert output == shown
        assert re.fullmatch(r"build.sh: built tfserving-digits \(also tagged \S+\) in \d+ s", built)
        assert following.startswith("build.sh: next: ")

    @pytest.mark.parametrize("verbose", ["", "1"])
    def test_prints_all_output_of_a_build_that_fails(self, checkout: Any, verbose: str) -> None:
        checkout.add_version("digits", 1)
        checkout.change(build="fails")
        result = checkout.run("build.sh", VERBOSE=verbose)
        assert (result.code, result.out) == (1, "")
        assert result.err.splitlines()[1:] == [
            "Step 1/1 : FROM scratch",
            "unable to find image",
            "build.sh: error: docker build failed with exit code 1; its output is above",
        ]
        assert list(checkout.tmp.iterdir()) == []

    def test_fails_without_permission_to_use_docker(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        checkout.change(engine="denied")
        result = checkout.run("build.sh")
        assert result.code == 1
        assert "error: docker info failed: " in result.err
        assert "add your user to the group docker" in result.err
        assert checkout.calls("build") == []

    def test_fails_without_docker(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        tools = checkout.tmp.parent / "tools"
        tools.mkdir()
        for tool in ("bash", "date", "dirname", "find", "head", "sort", "tail", "tr"):
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
        result = checkout.run("build.sh", PATH=str(tools))
        assert result.code == 1
        assert "docker is not installed; install docker, or serve without an image" in result.err
        assert "ENGINE=embedded bash run_tf_serving.sh" in result.err


class TestVersions:
    def test_selects_the_newest_by_number(self, checkout: Any) -> None:
        checkout.add_version("digits", 9, 10, 2)
        assert models_argument(checkout.run("build.sh", "--dry-run").command) == "digits:10"

    @pytest.mark.parametrize("versions", ["2,9", "9 2", " 9,\n2,", "2,2,9,09"])
    def test_selects_those_in_model_versions(self, checkout: Any, versions: str) -> None:
        checkout.add_version("digits", 9, 10, 2)
        assert (
            models_argument(checkout.run("build.sh", "--dry-run", MODEL_VERSIONS=versions).command)
            == "digits:2,9"
        )

    def test_ignores_other_files_and_directories(self, checkout: Any) -> None:
        checkout.add_version("digits", 3, "v4", "5.0", "-6", ".7", "staging-8", "9223372036854775808")
        (checkout.models / "digits" / "10").touch()
        assert models_argument(checkout.run("build.sh", "--dry-run").command) == "digits:3"

    def test_ignores_leading_zeros(self, checkout: Any) -> None:
        checkout.add_version("digits", "0007", 6)
        checkout.run("build.sh")
        assert "models/digits/7/saved_model.pb" in context(checkout)

    def test_of_two_names_for_one_version_selects_the_last(self, checkout: Any) -> None:
        model = checkout.add_version("digits", "01", "1")
        checkout.run("build.sh")
        selected = (checkout.world / "context/models/digits/1/saved_model.pb").read_bytes()
        assert selected == (model / "1" / "saved_model.pb").read_bytes()
        assert selected != (model / "01" / "saved_model.pb").read_bytes()

    def test_selects_the_largest_possible_version(self, checkout: Any) -> None:
        checkout.add_version("digits", 9223372036854775807, 10)
        assert models_argument(checkout.run("build.sh", "--dry-run").command) == "digits:9223372036854775807"


class TestBaseImage:
    ID, DIGEST, OTHER = (f"sha256:{character * 64}" for character in "abc")

    def base_labels(self, checkout: Any, **variables: str) -> list[str]:
        checkout.add_version("digits", 1)
        result = checkout.run("build.sh", **variables)
        assert result.code == 0, result.err
        (command,) = checkout.calls("build")
        found = [word for word in command if ".base." in word]
        assert all(command[command.index(word) - 1] == "--label" for word in found)
        return found

    @pytest.mark.parametrize(
        ("reference", "name"),
        [
            (BASE, "tensorflow/serving"),
            (f"docker.io/{BASE}", "tensorflow/serving"),
            ("host.example:5000/serving:1", "host.example:5000/serving"),
            ("host.example:5000/serving", "host.example:5000/serving"),
        ],
    )
    def test_records_the_digest(self, checkout: Any, reference: str, name: str) -> None:
        found = f"{self.ID} me/copy@{self.OTHER} {name}@{self.DIGEST}"
        checkout.change(bases={reference: found})
        labels = self.base_labels(checkout, TF_SERVING_IMAGE=reference)
        assert labels == [f"org.opencontainers.image.base.digest={self.DIGEST}"]
        assert checkout.calls("pull") == []

    def test_pulls_a_missing_image_to_know_its_digest(self, checkout: Any) -> None:
        checkout.change(bases={}, registry={BASE: f"{self.ID} tensorflow/serving@{self.DIGEST}"})
        assert self.base_labels(checkout) == [f"org.opencontainers.image.base.digest={self.DIGEST}"]

    def test_pulls_a_newer_image_if_docker_build_does(self, checkout: Any) -> None:
        checkout.change(
            bases={BASE: f"{self.ID} tensorflow/serving@{self.OTHER}"},
            registry={BASE: f"{self.ID} tensorflow/serving@{self.DIGEST}"},
        )
        labels = self.base_labels(checkout, DOCKER_ARGS="--pull")
        assert labels == [f"org.opencontainers.image.base.digest={self.DIGEST}"]

    def test_records_the_id_of_an_image_without_a_digest(self, checkout: Any) -> None:
        checkout.change(bases={"mine": self.ID})
        assert self.base_labels(checkout, TF_SERVING_IMAGE="mine") == [f"tfserving.base.id={self.ID}"]

    def test_records_the_digest_that_the_user_gave(self, checkout: Any) -> None:
        labels = self.base_labels(checkout, TF_SERVING_IMAGE=f"{BASE}@{self.DIGEST}")
        assert labels == [f"org.opencontainers.image.base.digest={self.DIGEST}"]
        assert [call[0] for call in checkout.calls()] == ["info", "build"]


class TestContext:
    def test_contains_only_the_files_of_the_image(self, checkout: Any) -> None:
        checkout.add_version("digits", 1, 2)
        checkout.add_version("other", 1)
        checkout.add_config()
        checkout.run("build.sh")
        assert list(context(checkout)) == [
            *("Dockerfile", "entrypoint.sh", "healthcheck.sh"),
            *("models/digits/2/saved_model.pb", "server_config.sh"),
        ]
        assert list(checkout.tmp.iterdir()) == []

    @pytest.mark.parametrize(
        ("variables", "options"),
        [
            ({}, "--interval=3s --timeout=10s --start-period=300s --retries=2"),
            (
                {"HEALTHCHECK_INTERVAL": "02", "HEALTHCHECK_START_PERIOD": "20"},
                "--interval=2s --timeout=10s --start-period=20s --retries=2",
            ),
            ({"HEALTHCHECK_START_PERIOD": "0"}, "--interval=3s --timeout=10s --start-period=0s --retries=2"),
        ],
    )
    def test_health_check_has_the_interval_and_start_period_of_the_settings(
        self, checkout: Any, variables: dict[str, str], options: str
    ) -> None:
        checkout.add_version("digits", 1)
        checkout.run("build.sh", **variables)
        dockerfile = (checkout.world / "context/Dockerfile").read_text()
        assert dockerfile == (ROOT / "Dockerfile").read_text().replace(
            "--interval=3s --timeout=10s --start-period=300s --retries=2", options
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("HEALTHCHECK_INTERVAL", "0"),
            ("HEALTHCHECK_INTERVAL", "2s"),
            ("HEALTHCHECK_START_PERIOD", "-1"),
            ("HEALTHCHECK_START_PERIOD", "5/"),
        ],
    )
    def test_rejects_invalid_times_of_the_health_check(self, checkout: Any, name: str, value: str) -> None:
        checkout.add_version("digits", 1)
        assert (
            f"{name}={value} is not a valid number of seconds"
            in checkout.run("build.sh", **{name: value}).rejection
        )

    def test_is_readable_for_every_user_with_any_umask(self, checkout: Any) -> None:
        model = checkout.add_version("digits", 1)
        for path in model.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        process_umask = os.umask(0o077)
        try:
            checkout.run("build.sh")
        finally:
            os.umask(process_umask)
        assert context(checkout)["models/digits/1/saved_model.pb"] == "-rw-r--r--"
        assert context(checkout)["entrypoint.sh"] == context(checkout)["healthcheck.sh"] == "-rwxr-xr-x"
        directories = [path for path in (checkout.world / "context/models").rglob("*") if path.is_dir()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o755}
        assert stat.S_IMODE((model / "1" / "saved_model.pb").stat().st_mode) == 0o600

    def test_resolves_links_in_models_dir(self, checkout: Any, tmp_path: Path) -> None:
        model = checkout.add_version("real", 5)
        (checkout.models / "digits").mkdir()
        (checkout.models / "digits" / "8").symlink_to(checkout.models / "real" / "5")
        (checkout.models / "vocabulary").write_text("words")
        (model / "5" / "assets").mkdir()
        (model / "5" / "assets" / "a b.txt").symlink_to("../../../vocabulary")
        (model / "5" / "assets" / "second").symlink_to("a b.txt")
        checkout.models.rename(tmp_path / "elsewhere")
        checkout.models.symlink_to(tmp_path / "elsewhere")
        result = checkout.run("build.sh")
        assert result.code == 0, result.err
        assert context(checkout)["models/digits/8/assets/a b.txt"] == "-rw-r--r--"
        assert (checkout.world / "context/models/digits/8/assets/second").read_text() == "words"
        copied = (checkout.world / "context/models/digits/8/saved_model.pb").read_bytes()
        assert copied == (model / "5" / "saved_model.pb").read_bytes()

    @pytest.mark.parametrize(
        "kind", ["file", "relative", "directory", "nested", "chain", "version", "hidden", "newline"]
    )
    @pytest.mark.parametrize("script", ["build.sh", "build_ensemble.sh"])
    def test_rejects_links_that_leave_models_dir(
        self, checkout: Any, tmp_path: Path, script: str, kind: str
    ) -> None:
        secret = tmp_path / "home" / "id_rsa"
        secret.parent.mkdir()
        secret.write_text("secret")
        version = checkout.add_version("digits", 1) / "1"
        checkout.add_version("half", 1)
        checkout.add_config()
        link = version / "assets"
        if kind == "file":
            link.symlink_to(secret)
        elif kind == "relative":
            link.symlink_to(os.path.relpath(secret, version))
        elif kind == "directory":
            link.symlink_to(secret.parent)
        elif kind == "nested":  # a link inside that leads to a directory with a link outside
            (checkout.models / "shared").mkdir()
            (checkout.models / "shared" / "key").symlink_to(secret)
            link.symlink_to("../../shared")
            link = link / "key"
        elif kind == "chain":
            (checkout.models / "hop").symlink_to(secret)
            link.symlink_to("../../hop")
        elif kind == "version":
            version.rename(tmp_path / "1")
            version.symlink_to(tmp_path / "1")
            link = version
        elif kind == "hidden":
            (checkout.models / ".git").mkdir()
            (checkout.models / ".git" / "config").write_text("secret")
            link.symlink_to("../../.git/config")
        else:
            (version / "x").write_text("")
            (version / "x\n").symlink_to(secret)
            link.symlink_to("x\n")
        rejection = checkout.run(script).rejection
        assert "which is hidden or not in" in rejection
        assert kind == "newline" or str(link) in rejection
        assert checkout.calls() == []

    def test_skips_hidden_files(self, checkout: Any) -> None:
        version = checkout.add_version("digits", 1) / "1"
        (version / ".git").mkdir()
        (version / ".git" / "config").write_text("secret")
        (version / ".env").symlink_to("/etc/passwd")
        (version / "assets").mkdir()
        (version / "assets" / ".hidden").write_text("secret")
        (version / "assets" / "vocabulary").write_text("words")
        result = checkout.run("build.sh")
        assert result.code == 0, result.err
        assert [name for name in context(checkout) if name.startswith("models/")] == [
            "models/digits/1/assets/vocabulary",
            "models/digits/1/saved_model.pb",
        ]
        (note,) = [line for line in result.err.splitlines() if "hidden files are not copied" in line]
        assert f"{version}/.env " in note

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_is_removed_after_a_signal(self, checkout: Any, number: int) -> None:
        checkout.add_version("digits", 1)
        checkout.change(build="hangs")
        process = checkout.start("build.sh")
        while not (checkout.world / "building").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)  # to the whole group, as a terminal does
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert list(checkout.tmp.iterdir()) == []


class TestRejects:
    @pytest.mark.parametrize(
        "name",
        [
            *(
                ".",
                "..",
                "../digits",
                "a/b",
                "/etc",
                "-rf",
                "a b",
                "a'b",
                'a"b',
                "a;id",
                "$(id)",
                "a\nb",
                "é",
            ),
            "x" * 129,
        ],
    )
    def test_invalid_model_names(self, checkout: Any, name: str) -> None:
        result = checkout.run("build.sh", MODEL_NAME=name)
        assert (
            "is not a valid model name (at most 128 letters" in result.rejection
            or "contains a control character" in result.rejection
        )
        assert checkout.calls() == []

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            (
                {"MODELS_DIR": "/nowhere"},
                "MODELS_DIR=/nowhere is not a directory; create it with python export",
            ),
            ({"MODEL_NAME": "flowers"}, "/models/flowers does not exist; create the model with python"),
            ({"MODEL_NAME": "empty"}, "has no version (a directory whose name is an integer)"),
            ({"MODEL_NAME": "bare"}, "is not a SavedModel: saved_model.pb is missing or empty"),
            ({"MODEL_NAME": "hollow"}, "is not a SavedModel: saved_model.pb is missing or empty"),
            ({"MODEL_NAME": "dangling"}, "contains a special file or a broken link"),
            ({"MODEL_NAME": "pipe"}, "contains a special file or a broken link"),
            (
                {"MODEL_VERSIONS": "1,3"},
                "/models/digits has no version 3 (found 1,2); remove it from MODEL_VERSIONS or export it",
            ),
            ({"MODEL_VERSIONS": "one"}, "is not a valid list of versions (integers such as 1,2)"),
            ({"MODEL_VERSIONS": "-1"}, "MODEL_VERSIONS=-1 is not a valid list of versions"),
            ({"MODEL_VERSIONS": "1;id"}, "MODEL_VERSIONS='1;id' is not a valid list of versions"),
            ({"MODEL_VERSIONS": "*"}, "MODEL_VERSIONS='*' is not a valid list of versions"),
            ({"MODEL_VERSIONS": "99999999999999999999"}, "is not a valid version (0-9223372036854775807)"),
            ({"IMAGE_NAME": "a@sha256:" + "0" * 64}, "has a digest, which is unknown before the build"),
            (
                {"IMAGE_NAME": "tensorflow/serving:2.20.0"},
                "is the base image; set IMAGE_NAME to another name",
            ),
            ({"IMAGE_NAME": "docker.io/tensorflow/serving"}, "is the base image"),
            ({"IMAGE_NAME": "a:latest", "TF_SERVING_IMAGE": "a"}, "IMAGE_NAME=a:latest is the base image"),
            (
                {"MODEL_NAME": "_x"},
                "MODEL_NAME=_x gives no valid default for IMAGE_NAME: tfserving-_x is not",
            ),
            ({"DOCKER_ARGS": "--label 'a"}, "has an unclosed quote"),
            ({"VERBOSE": "yes"}, "VERBOSE=yes is not a valid value (0, 1)"),
        ],
    )
    def test_models_and_settings_that_cannot_be_built(
        self, checkout: Any, variables: dict[str, str], message: str
    ) -> None:
        checkout.add_version("digits", 1, 2)
        checkout.add_version("empty", "v1")
        (checkout.models / "bare" / "1").mkdir(parents=True)
        (checkout.add_version("hollow", 1) / "1" / "saved_model.pb").write_bytes(b"")
        (checkout.add_version("dangling", 1) / "1" / "assets").symlink_to("nowhere")
        os.mkfifo(checkout.add_version("pipe", 1) / "1" / "assets")
        assert message in checkout.run("build.sh", **variables).rejection
        assert checkout.calls() == []
        assert list(checkout.tmp.iterdir()) == []

    def test_notes_that_graphs_are_not_checked_without_python(self, checkout: Any) -> None:
        checkout.add_version("digits", 1)
        tools = checkout.tmp.parent / "tools"
        tools.mkdir()
        for name in ("python", "python3"):
            (tools / name).write_text("#!/bin/sh\nexit 1\n")
            (tools / name).chmod(0o755)
        result = checkout.run("build.sh", "--dry-run", PATH=f"{tools}:{checkout.environment['PATH']}")
        assert "note: graphs and variables are not checked, since no Python" in result.err

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("saved_model.pb", b"garbage", "has a saved_model.pb that is not a valid SavedModel"),
            (
                "variables/variables.data-00000-of-00001",
                bytes(7),
                "has a truncated variables/variables.data-00000-of-00001 (7 of 8 bytes)",
            ),
        ],
    )
    def test_a_version_that_no_server_can_load(
        self, checkout: Any, name: str, content: bytes, message: str
    ) -> None:
        write_saved_model(checkout.models / "digits" / "1")
        (checkout.models / "digits" / "1" / name).write_bytes(content)
        result = checkout.run("build.sh")
        assert "nothing was built; fix the errors above" in result.rejection
        assert f"digits/1: error: it {message}" in result.err
        assert checkout.calls() == []

    def test_a_missing_model_with_the_command_that_creates_it(self, checkout: Any, tmp_path: Path) -> None:
        rejection = checkout.run("build.sh").rejection
        assert "python export_saved_model.py SOURCE --name digits, or run bash quickstart.sh" in rejection
        (tmp_path / "my models").mkdir()
        rejection = checkout.run("build.sh", MODELS_DIR=str(tmp_path / "my models")).rejection
        assert f"--name digits --models-dir '{tmp_path}/my models'" in rejection

    @pytest.mark.parametrize("argument", ["digits", "--force", "-x", "", "--dry-run=yes", "; id"])
    def test_unknown_arguments(self, checkout: Any, argument: str) -> None:
        assert "unknown argument" in checkout.run("build.sh", argument).rejection

    @pytest.mark.parametrize("reference", ["Digits", "a;b", "--tag", "a@sha256:12"])
    @pytest.mark.parametrize("variable", ["IMAGE_NAME", "TF_SERVING_IMAGE"])
    def test_invalid_image_references(self, checkout: Any, variable: str, reference: str) -> None:
        checkout.add_version("digits", 1)
        rejection = checkout.run("build.sh", **{variable: reference}).rejection
        assert rejection.startswith(f"build.sh: error: {variable}=")
        assert "is not a valid image reference ([HOST[:PORT]/]NAME[:TAG]" in rejection
        assert checkout.calls() == []


VALID_REFERENCES = [
    *("a", "a1", "a.b", "a_b", "a__b", "a---b", "me/a", "me/my/a", "a:latest", "a:V1.2_x-y", "localhost/a"),
    *("localhost:5000/a:b", "registry.example.com/me/a", "registry.example.com:5000/me/a:1", "Host:1/a"),
    *("127.0.0.1:5000/a", "[::1]:5000/a", "My-Host.example/a", "a:" + "t" * 128, "host:5000/a/b__c.d:e"),
    *("a@sha256:" + "0a" * 32, "me/a:b@sha256:" + "0a" * 32),
]
INVALID_REFERENCES = [
    *("", "A", "Digits", "me/Digits", "-a", "a-", "a..b", "a.-b", "a___b", "a b", "a:", ":a", "a:-b"),
    *("a:b:c", "/a", "a//b", "a/", "a@", "a@sha256:12", "host:x/a", "../a", "a;b"),
    *("a:" + "t" * 129, "x" * 256, "0" * 64),
    *("https://example.com/a", "a\nb", "--tag", "$(id)", "[::1/a", "ä", "Host/a"),
]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_image_references_follow_the_grammar(checkout: Any, locale: str) -> None:
    script = """
    source "$ROOT/lib/common.sh"
    for reference; do
      if is_image_reference "$reference"; then printf "%s\\0" "$reference"; fi
    done
    """
    environment = {**checkout.environment, "ROOT": str(ROOT), "SCRIPT": "test", "LC_ALL": locale}
    command = ["bash", "-c", script, "bash", *VALID_REFERENCES, *INVALID_REFERENCES]
    valid = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert valid.split("\0")[:-1] == VALID_REFERENCES


def test_accepts_a_base_image_with_a_digest(checkout: Any) -> None:
    checkout.add_version("digits", 1)
    base = f"{BASE}@sha256:{'0a' * 32}"
    command = checkout.run("build.sh", "--dry-run", TF_SERVING_IMAGE=base).command
    assert f"TF_SERVING_IMAGE={base}" in command
    assert f"org.opencontainers.image.base.digest=sha256:{'0a' * 32}" in command
