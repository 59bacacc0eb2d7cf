"""The image's health check against a fake REST API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

HEALTHCHECK = Path(__file__).parents[2] / "docker" / "healthcheck.sh"
DEADLINE = 30.0

AVAILABLE, LOADING, END = "AVAILABLE", "LOADING", "END"


def status(*states: str) -> str:
    """The body of GET /v1/models/NAME in the format of tensorflow_model_server 2.20.0."""
    versions = [
        {"version": str(number), "state": state, "status": {"error_code": "OK", "error_message": ""}}
        for number, state in enumerate(states, 1)
    ]
    return json.dumps({"model_version_status": versions}, indent=1)


class Rest:
    """A REST API with the models in `bodies`; `paths` has the raw paths of the requests."""

    def __init__(self) -> None:
        self.bodies: dict[str, str] = {"digits": status(AVAILABLE)}
        self.paths: list[str] = []
        rest = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                rest.paths.append(self.path)
                body = rest.bodies.get(unquote(self.path.removeprefix("/v1/models/")))
                self.send_response(200 if body else 404)
                self.end_headers()
                self.wfile.write((body or '{ "error": "Servable not found" }').encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def rest() -> Iterator[Rest]:
    server = Rest()
    yield server
    server.close()


Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, rest: Rest) -> Check:
    """Runs the health check for a server with these flags; returns its exit code and its line."""

    def run(*flags: str, **environment: str) -> tuple[int, str]:
        command = ["tensorflow_model_server", f"--rest_api_port={rest.port}", "--model_name=digits", *flags]
        (tmp_path / "command").write_text("".join(f"{word}\0" for word in command))
        return run_healthcheck(tmp_path, **environment)

    return run


def run_healthcheck(state: Path, *args: str, **environment: str) -> tuple[int, str]:
    result = subprocess.run(
        [str(HEALTHCHECK), *args],
        env={"PATH": os.environ["PATH"], "STATE_DIR": str(state), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    return result.returncode, result.stdout.rstrip("\n")


class TestOneModel:
    def test_is_healthy_if_available(self, check: Check) -> None:
        assert check() == (0, "healthy: digits AVAILABLE")

    def test_is_healthy_with_one_available_version(self, check: Check, rest: Rest) -> None:
        rest.bodies["digits"] = status(END, AVAILABLE, LOADING)
        assert check()[0] == 0

    def test_accepts_compact_json(self, check: Check, rest: Rest) -> None:
        rest.bodies["digits"] = '{"model_version_status":[{"version":"1","state":"AVAILABLE"}]}'
        assert check()[0] == 0

    @pytest.mark.parametrize("states", [[], [LOADING], [END, END]])
    def test_is_unhealthy_without_an_available_version(
        self, check: Check, rest: Rest, states: list[str]
    ) -> None:
        rest.bodies["digits"] = status(*states)
        assert check() == (1, "unhealthy: model digits has no AVAILABLE version")

    def test_ignores_a_state_in_an_error_message(self, check: Check, rest: Rest) -> None:
        versions = [{"state": END, "status": {"error_message": 'was "state": "AVAILABLE"'}}]
        rest.bodies["digits"] = json.dumps({"model_version_status": versions})
        assert check()[0] == 1

    def test_is_unhealthy_if_the_server_does_not_have_the_model(self, check: Check, rest: Rest) -> None:
        rest.bodies.clear()
        assert check() == (1, "unhealthy: model digits: the server responds 404 Not Found")

    def test_checks_the_model_of_the_last_flag(self, check: Check, rest: Rest) -> None:
        rest.bodies["other"] = status(AVAILABLE)
        assert check("--model_name=third", "--model_name=other") == (0, "healthy: other AVAILABLE")

    def test_checks_the_port_of_the_last_flag(self, check: Check) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
            port = taken.getsockname()[1]
            code, line = check(f"--rest_api_port={port}")
        assert (code, line) == (1, f"unhealthy: no response from port {port} (REST) for model digits")

    @pytest.mark.parametrize("port", ["0", "", "x[$(id)]", "80/../.."])
    def test_is_unhealthy_without_a_valid_port(self, check: Check, port: str) -> None:
        code, line = check(f"--rest_api_port={port}")
        assert code == 1
        assert line.startswith("unhealthy: REST is off")

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("a b", "a%20b"),
            ("../../metrics", "..%2F..%2Fmetrics"),
            ("x HTTP/1.0\r\nHost: y", "x%20HTTP%2F1.0%0D%0AHost%3A%20y"),
            ("ziffern-äß_1.0", "ziffern-%C3%A4%C3%9F_1.0"),
            ("100%$(id)*", "100%25%24%28id%29%2A"),
        ],
    )
    def test_encodes_the_name_as_one_path_segment(
        self, check: Check, rest: Rest, name: str, path: str
    ) -> None:
        rest.bodies[name] = status(AVAILABLE)
        assert check(f"--model_name={name}")[0] == 0
        assert rest.paths == [f"/v1/models/{path}"]


class TestUnhealthy:
    def test_during_a_drain(self, check: Check, tmp_path: Path) -> None:
        (tmp_path / "draining").touch()
        assert check() == (1, "unhealthy: draining: received a stop signal")

    def test_before_the_start(self, tmp_path: Path) -> None:
        assert run_healthcheck(tmp_path) == (1, "unhealthy: no server was started in this container")

    def test_with_an_unknown_argument(self, tmp_path: Path) -> None:
        assert run_healthcheck(tmp_path, "digits")[0] == 1

    def test_if_the_server_never_responds(self, check: Check) -> None:
        with socket.create_server(("127.0.0.1", 0)) as frozen:
            code, line = check(f"--rest_api_port={frozen.getsockname()[1]}", HEALTHCHECK_SECONDS="0.5")
        assert (code, line) == (1, "unhealthy: no response within 0.5 s")

    def test_if_the_server_closes_the_connection(self, check: Check) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def close_connection() -> None:
                connection, _ = server.accept()
                connection.recv(1)
                connection.close()

            thread = threading.Thread(target=close_connection)
            thread.start()
            code, line = check(f"--rest_api_port={server.getsockname()[1]}")
            thread.join()
        assert code == 1
        assert line.startswith("unhealthy: ")


CONFIGS = {
    "lines": (
        """
        # the models
        model_config_list {
          config {
            name: "digits"  # name: "comment"
            base_path: "/models/digits"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 1 versions: 2 } }
            version_labels { key: "stable" value: 1 }
            version_labels { key: "name" value: 2 }
          }
          # config { name: "off" base_path: "/models/off" }
          config {
            base_path: '/models/wine'
            name: 'wine'
          }
        }
        """,
        ["digits", "wine"],
    ),
    "one line": (
        'model_config_list:{config:{name:"a",base_path:"/models/a"};config<name:\'b\' base_path:"/b">}',
        ["a", "b"],
    ),
    "list": ('model_config_list { config [ { name: "a" }, { name: "b" } ] }', ["a", "b"]),
    "strings": (
        "model_config_list { config { name: 'a#\"' base_path: \"/{# name: 'c'\\\"\" }"
        ' config { name: "b" \'c\' "\\"" } }',
        ['a#"', 'bc"'],
    ),
    "string over lines": ('model_config_list { config { name:\n"a"\n# and\n"b" } }', ["ab"]),
    "names elsewhere": (
        'model_config_list { config { name: "a" version_labels { name: "x" } logging_config { name: "y" } } }'
        ' custom_model_config { config { name: "z" } } name: "w"',
        ["a"],
    ),
    "adjacent models": (
        'model_config_list { config { name: "a" } } model_config_list { config { name: "b" } }',
        ["a", "b"],
    ),
}


class TestConfig:
    @pytest.mark.parametrize(("text", "names"), CONFIGS.values(), ids=CONFIGS)
    def test_reads_the_names_of_the_models(
        self, check: Check, rest: Rest, tmp_path: Path, text: str, names: list[str]
    ) -> None:
        (tmp_path / "models.config").write_text(text)
        rest.bodies = {name: status(AVAILABLE) for name in names}
        assert check("--model_config_file=/gone") == (0, f"healthy: {' '.join(names)} AVAILABLE")
        assert len(rest.paths) == len(names)

    def test_is_unhealthy_if_one_model_is_not_available(
        self, check: Check, rest: Rest, tmp_path: Path
    ) -> None:
        (tmp_path / "models.config").write_text(CONFIGS["lines"][0])
        rest.bodies["wine"] = status(LOADING)
        assert check("--model_config_file=/gone") == (1, "unhealthy: model wine has no AVAILABLE version")

    @pytest.mark.parametrize("text", ["", "model_config_list { }", "{ } } }", '"', "name: 'a'"])
    def test_is_unhealthy_without_a_model(self, check: Check, tmp_path: Path, text: str) -> None:
        (tmp_path / "models.config").write_text(text)
        assert check("--model_config_file=/gone") == (
            1,
            "unhealthy: the active models.config names no model",
        )

    def test_an_empty_flag_means_single_mode(self, check: Check) -> None:
        assert check("--model_config_file=/gone", "--model_config_file=")[0] == 0

    @pytest.mark.parametrize(("poll", "name"), [("0", "old"), ("1", "new"), ("10", "new")])
    def test_reads_a_changed_config_only_if_the_server_polls_it(
        self, check: Check, rest: Rest, tmp_path: Path, poll: str, name: str
    ) -> None:
        (tmp_path / "models.config").write_text('model_config_list { config { name: "old" } }')
        live = tmp_path / "live config"
        live.write_text('model_config_list { config { name: "new" } }')
        rest.bodies = {"old": status(AVAILABLE), "new": status(AVAILABLE)}
        flags = (f"--model_config_file={live}", f"--model_config_file_poll_wait_seconds={poll}")
        assert check(*flags) == (0, f"healthy: {name} AVAILABLE")

    @pytest.mark.parametrize("text", ["", "model_config_list {", '{"models": ["new"]}', None])
    def test_ignores_a_polled_config_that_the_server_ignores(
        self, check: Check, rest: Rest, tmp_path: Path, text: str | None
    ) -> None:
        (tmp_path / "models.config").write_text('model_config_list { config { name: "old" } }')
        live = tmp_path / "live.config"
        if text is not None:
            live.write_text(text)
        rest.bodies = {"old": status(AVAILABLE)}
        flags = (f"--model_config_file={live}", "--model_config_file_poll_wait_seconds=1")
        assert check(*flags) == (0, "healthy: old AVAILABLE")
        # and later it keeps the last valid one
        live.write_text('model_config_list { config { name: "new" } }')
        rest.bodies = {"new": status(AVAILABLE)}
        assert check(*flags) == (0, "healthy: new AVAILABLE")
        live.write_text(text or "")
        assert check(*flags) == (0, "healthy: new AVAILABLE")
