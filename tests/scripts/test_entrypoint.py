"""The image's PID 1, run as a plain process with a fake tensorflow_model_server on PATH."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.sh"
DEADLINE = 30.0

# Prints its arguments, then each SIGTERM. ON_TERM=die: without a handler, as tensorflow_model_server.
FAKE_SERVER = f"""#!{sys.executable}
import json, os, signal, sys

def on_term(number, frame):
    os.write(1, b"TERM\\n")  # print is not reentrant
    if os.environ["ON_TERM"] != "ignore once":
        os._exit(int(os.environ["ON_TERM"]))
    os.environ["ON_TERM"] = "0"

if os.environ["ON_TERM"] != "die":
    signal.signal(signal.SIGTERM, on_term)
print(json.dumps(dict(argv=sys.argv[1:], pid=os.getpid())), flush=True)
while "EXIT_CODE" not in os.environ:
    signal.pause()
os._exit(int(os.environ["EXIT_CODE"]))
"""

# The timer of the drain: exits when the test writes to the fifo.
FAKE_SLEEP = """#!/bin/sh
echo "$1" >"$SLEEP_SECONDS"
read -r _ <"$SLEEP_ENDS"
"""


def write_executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Entrypoint:
    """One run of the entrypoint."""

    def __init__(self, folder: Path, *args: str, **environment: str) -> None:
        self.state = folder / "state"
        self.models = folder / "models"
        settings = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "MODE": "single",
            "MODEL_NAME": "digits",
            "MODEL_BASE_PATH": str(self.models),
            "DRAIN_SECONDS": "0",
            "STATE_DIR": str(self.state),
            "ON_TERM": "die",
            "SLEEP_SECONDS": f"{folder}/seconds",
            "SLEEP_ENDS": f"{folder}/ends",
        }
        self.process = subprocess.Popen(
            [str(ENTRYPOINT), *args],
            env={**settings, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def message(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def started(self) -> list[str]:
        """Waits for the server; returns its arguments."""
        started = json.loads(self.line())
        self.server: int = started["pid"]
        arguments: list[str] = started["argv"]
        return arguments

    def kill(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Waits for the exit; returns the code and the rest of stderr."""
        _, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, err


Run = Callable[..., Entrypoint]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "models" / "digits" / "1").mkdir(parents=True)
    write_executable(tmp_path / "bin" / "tensorflow_model_server", FAKE_SERVER)
    write_executable(tmp_path / "bin" / "sleep", FAKE_SLEEP)
    os.mkfifo(tmp_path / "seconds")
    os.mkfifo(tmp_path / "ends")
    runs: list[Entrypoint] = []

    def start(*args: str, **environment: str) -> Entrypoint:
        runs.append(Entrypoint(tmp_path, *args, **environment))
        return runs[-1]

    yield start
    for entrypoint in runs:
        # Its session contains the server and the timer of the drain.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(entrypoint.process.pid, signal.SIGKILL)
        entrypoint.process.communicate(timeout=DEADLINE)


def write_config(tmp_path: Path, text: str, name: str = "models.config") -> Path:
    path = tmp_path / "models" / name
    path.write_text(text)
    return path


DIGITS = 'model_config_list { config { name: "digits" base_path: "/models/digits" } }\n'
LABELS = 'config { name: "digits" version_labels { key: "stable" value: 1 } }\n'
ALLOW_LABELS = "--allow_version_labels_for_unavailable_models=true"


class TestCommand:
    def test_single_mode_serves_the_model_in_model_name(self, run: Run, tmp_path: Path) -> None:
        assert run().started() == [
            "--port=8500",
            "--rest_api_port=8501",
            "--grpc_max_threads=64",
            "--max_num_load_retries=5",
            "--load_retry_interval_micros=10000000",
            "--model_name=digits",
            f"--model_base_path={tmp_path}/models/digits",
        ]

    def test_multi_mode_serves_the_config(self, run: Run, tmp_path: Path) -> None:
        config = write_config(tmp_path, DIGITS)
        assert run(MODE="multi").started() == [
            "--port=8500",
            "--rest_api_port=8501",
            "--grpc_max_threads=64",
            "--max_num_load_retries=5",
            "--load_retry_interval_micros=10000000",
            f"--model_config_file={config}",
        ]

    def test_single_mode_ignores_a_config(self, run: Run, tmp_path: Path) -> None:
        write_config(tmp_path, DIGITS)
        assert "--model_name=digits" in run(MODE="single").started()

    def test_flags_of_the_user_come_last(self, run: Run) -> None:
        given = ["--grpc_max_threads=8", "--model_name=it's; $(x) *"]
        assert run(*given).started()[-2:] == given

    @pytest.mark.parametrize(
        ("config", "allowed"),
        [
            (DIGITS, False),
            (DIGITS + LABELS, True),
            ("version_labels { }", True),
            (f"  # {LABELS}", False),
            (f"# a comment\n{LABELS}", True),
        ],
    )
    def test_labels_allow_unavailable_versions(
        self, run: Run, tmp_path: Path, config: str, allowed: bool
    ) -> None:
        write_config(tmp_path, config)
        assert (ALLOW_LABELS in run(MODE="multi").started()) is allowed

    def test_labels_in_a_config_of_the_user_allow_unavailable_versions(
        self, run: Run, tmp_path: Path
    ) -> None:
        write_config(tmp_path, DIGITS)
        other = write_config(tmp_path, LABELS, "other.config")
        for mode in ("single", "multi"):
            command = run(f"--model_config_file={other}", MODE=mode).started()
            assert command[-2:] == [ALLOW_LABELS, f"--model_config_file={other}"]

    def test_warns_about_flags_that_the_server_ignores(self, run: Run) -> None:
        entrypoint = run("--enable_bathing", "--enable_batching", "--access_log=-")
        assert "--enable_bathing" in entrypoint.started()
        entrypoint.kill()
        assert entrypoint.wait()[1].splitlines()[0] == (
            "tfserving-entrypoint: warning: --enable_bathing is not a flag of tensorflow_model_server, "
            "which ignores it; did you mean --enable_batching?"
        )

    @pytest.mark.parametrize(
        ("age", "grace", "given", "arguments"),
        [
            ("60", "", None, "grpc.max_connection_age_ms=60000"),
            ("060", "09", None, "grpc.max_connection_age_ms=60000,grpc.max_connection_age_grace_ms=9000"),
            (
                "60",
                "0",
                "a=1,b=2",
                "grpc.max_connection_age_ms=60000,grpc.max_connection_age_grace_ms=0,a=1,b=2",
            ),
            ("60", "", "a=1,grpc.max_connection_age_ms=5", "a=1,grpc.max_connection_age_ms=5"),
            ("0", "9", "a=1", "a=1"),
            ("", "", "a=1", "a=1"),
        ],
    )
    def test_connections_have_a_maximum_age(
        self, run: Run, age: str, grace: str, given: str | None, arguments: str
    ) -> None:
        flags = [] if given is None else [f"--grpc_channel_arguments={given}"]
        entrypoint = run(*flags, MAX_CONNECTION_AGE_SECONDS=age, MAX_CONNECTION_AGE_GRACE_SECONDS=grace)
        assert entrypoint.started()[-1] == f"--grpc_channel_arguments={arguments}"

    def test_a_command_replaces_the_server(self, run: Run) -> None:
        entrypoint = run("sh", "-c", 'echo "$0 $MODE"; exit 5', "a b", MODE="nonsense")
        assert entrypoint.line() == "a b nonsense"
        assert entrypoint.wait() == (5, "")


class TestRejects:
    @pytest.mark.parametrize("name", ["MAX_CONNECTION_AGE_SECONDS", "MAX_CONNECTION_AGE_GRACE_SECONDS"])
    @pytest.mark.parametrize("seconds", ["-1", "1.5", "ten", "1 2", "999999", "$(id)"])
    def test_an_invalid_connection_age(self, run: Run, name: str, seconds: str) -> None:
        code, err = run(**{name: seconds}).wait()
        assert code == 2
        assert err == (
            f"tfserving-entrypoint: error: {name}={seconds} is not a valid number of seconds (0-99999)\n"
        )

    @pytest.mark.parametrize("seconds", ["", "-1", "1.5", "ten", "1 2", "999999", "$(id)"])
    def test_invalid_drain_seconds(self, run: Run, seconds: str) -> None:
        code, err = run(DRAIN_SECONDS=seconds).wait()
        assert code == 2
        assert err.startswith("tfserving-entrypoint: error: DRAIN_SECONDS")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"MODE": ""}, "MODE is empty"),
            ({"MODE": "both"}, "MODE=both is not a valid mode (single, multi)"),
            ({"MODEL_NAME": ""}, "MODEL_NAME is empty"),
            ({"MODE": "multi"}, "{}/models/models.config does not exist; mount a models.config there"),
        ],
    )
    def test_invalid_settings(self, run: Run, tmp_path: Path, settings: dict[str, str], message: str) -> None:
        code, err = run(**settings).wait()
        assert code == 2
        assert err.startswith(f"tfserving-entrypoint: error: {message.format(tmp_path)}")

    @pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
    def test_a_config_that_is_not_a_regular_file(self, run: Run, tmp_path: Path, kind: str) -> None:
        config = tmp_path / "models" / "models.config"
        if kind == "fifo":
            os.mkfifo(config)
        elif kind == "directory":
            config.mkdir()
        else:
            config.symlink_to("/dev/zero")
        code, err = run(MODE="multi").wait()
        assert code == 2
        assert f"{config} is not a regular file; mount a models.config there" in err

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable_models(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "models" / "digits").chmod(0)
        code, err = run().wait()
        assert code == 1
        assert "chmod -R a+rX" in err

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_unreadable_versions_cause_a_warning(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "models" / "digits" / "1").chmod(0)
        entrypoint = run()
        entrypoint.started()
        assert f"cannot read {tmp_path}/models/digits/1; run chmod" in entrypoint.message()

    def test_an_unwritable_state_directory(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        code, err = run(STATE_DIR=str(tmp_path / "file" / "state")).wait()
        assert code == 1
        assert "mount a tmpfs at /dev/shm" in err

    def test_accepts_leading_zeros_in_drain_seconds(self, run: Run, tmp_path: Path) -> None:
        entrypoint = run(DRAIN_SECONDS="08")  # not a valid octal number
        entrypoint.started()
        entrypoint.kill()
        assert entrypoint.message().startswith("tfserving-entrypoint: stopping in 8 s")
        assert (tmp_path / "seconds").read_text() == "8\n"
        entrypoint.kill()
        assert entrypoint.wait()[0] == 128 + signal.SIGTERM


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_a_server_without_a_handler(self, run: Run, number: int) -> None:
        entrypoint = run()
        entrypoint.started()
        entrypoint.kill(number)
        assert entrypoint.wait()[0] == 128 + signal.SIGTERM

    def test_returns_the_code_of_a_server_that_stops_gracefully(self, run: Run) -> None:
        entrypoint = run(ON_TERM="0")
        entrypoint.started()
        entrypoint.kill()
        assert entrypoint.line() == "TERM"
        assert entrypoint.wait()[0] == 0

    def test_waits_for_a_slow_server(self, run: Run) -> None:
        entrypoint = run(ON_TERM="ignore once")
        entrypoint.started()
        entrypoint.kill()
        assert entrypoint.line() == "TERM"
        assert entrypoint.process.poll() is None
        entrypoint.kill()
        assert entrypoint.line() == "TERM"
        assert entrypoint.wait()[0] == 0

    @pytest.mark.parametrize("code", [0, 1, 255])
    def test_returns_the_code_of_a_server_that_exits(self, run: Run, code: int) -> None:
        entrypoint = run(EXIT_CODE=str(code))
        entrypoint.started()
        assert entrypoint.wait()[0] == code

    def test_returns_128_plus_the_signal_of_a_killed_server(self, run: Run) -> None:
        entrypoint = run()
        entrypoint.started()
        os.kill(entrypoint.server, signal.SIGKILL)
        assert entrypoint.wait()[0] == 128 + signal.SIGKILL

    def test_fails_without_a_server(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "bin" / "tensorflow_model_server").unlink()
        code, err = run().wait()
        assert code == 127
        assert "tensorflow_model_server" in err


class TestDrain:
    @pytest.fixture
    def draining(self, run: Run, tmp_path: Path) -> Entrypoint:
        """A server that drains for 15 s."""
        entrypoint = run(DRAIN_SECONDS="15", ON_TERM="0")
        entrypoint.started()
        entrypoint.kill()
        assert entrypoint.message().startswith("tfserving-entrypoint: stopping in 15 s")
        assert (tmp_path / "seconds").read_text() == "15\n"
        return entrypoint

    def test_is_marked_before_the_server_stops(self, draining: Entrypoint) -> None:
        assert (draining.state / "draining").exists()
        os.kill(draining.server, 0)
        assert draining.process.poll() is None

    def test_stops_the_server_after_its_time(self, draining: Entrypoint, tmp_path: Path) -> None:
        (tmp_path / "ends").write_text("now\n")
        assert draining.line() == "TERM"
        assert draining.wait()[0] == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_stops_the_server(self, draining: Entrypoint, number: int) -> None:
        draining.kill(number)
        assert draining.line() == "TERM"
        assert draining.wait()[0] == 0

    def test_ends_if_the_server_exits(self, draining: Entrypoint) -> None:
        os.kill(draining.server, signal.SIGKILL)
        assert draining.process.wait(DEADLINE) == 128 + signal.SIGKILL

    def test_is_marked_without_drain_seconds(self, run: Run) -> None:
        entrypoint = run(ON_TERM="ignore once")
        entrypoint.started()
        entrypoint.kill()
        assert entrypoint.line() == "TERM"
        assert (entrypoint.state / "draining").exists()

    def test_removes_the_mark_of_an_earlier_run(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "draining").touch()
        run().started()
        assert not (tmp_path / "state" / "draining").exists()
