"""A copy of the checkout in which the commands of the documentation run without side effects outside it.

The documentation uses default ports, container names and /tmp. Each copy uses free ports, its own names and
its own directory instead. They are replaced in its scripts and in the commands, and replaced back in the
output.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT

GATEWAY_PORTS = {"GATEWAY_PORT": "8443", "METRICS_PORT": "9902"}
PORT = re.compile(rf"\b(?:8[5-9][0-9]{{2}}|{'|'.join(GATEWAY_PORTS.values())})\b")
NAMED = ("CONTAINER_NAME[= ]", r"\.run/", "logs --tail 20 ", "STABLE=", "CANARY=")
CONTAINER = re.compile(rf"(?:{'|'.join(f'(?<={before})' for before in NAMED)})([a-z][\w-]*)")
BLOCK_TIMEOUT = 600.0  # seconds for one block; none takes a tenth of it
END = b"\x1e"


@dataclass(frozen=True)
class Output:
    """What a block printed."""

    stdout: str
    stderr: str


class CheckoutCopy:
    """The tracked and the new files of the checkout, in their own directory and git repository.

    Args:
        directory: an empty directory.
        environment: variables for the commands.
        path: directories to search for commands before all others.
    """

    def __init__(self, directory: Path, environment: dict[str, str], path: Sequence[Path] = ()) -> None:
        self.prefix = f"tfserving-docs-{uuid.uuid4().hex[:8]}"
        self.root = directory / "checkout"
        self._places = {"/tmp/": f"{directory}/tmp/"}
        self._ports: dict[str, str] = {}
        (directory / "tmp").mkdir()
        self._copy_files()
        self._create_venv()
        self.environment = {
            "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
            "HOME": str(directory),
            "TMPDIR": str(directory / "tmp"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PIP_NO_BUILD_ISOLATION": "0",  # which turns isolation off: the build downloads nothing
            "GATEWAY_NAME": f"{self.prefix}-tfserving-gateway",
            "NETWORK": f"{self.prefix}-network",
            **{name: self._port(port) for name, port in GATEWAY_PORTS.items()},
            **environment,
        }
        self._shell = self._start_shell()

    def to_local(self, text: str) -> str:
        """Replace ports, names and places of the documentation by those of this copy."""
        text = PORT.sub(lambda match: self._port(match[0]), text)
        text = CONTAINER.sub(rf"{self.prefix}-\1", text)
        for documented, local in self._places.items():
            text = text.replace(documented, local)
        return text

    def to_documented(self, text: str) -> str:
        """Replace ports, names and places of this copy by those of the documentation."""
        for documented, local in self._places.items():
            text = text.replace(local, documented)
        for documented, local in self._ports.items():
            text = re.sub(rf"(?<![\w.]){local}\b", documented, text)  # not in the digits of a number
        return text.replace(f"{self.prefix}-", "").replace(f"{self.root}/", "")

    def run_bash(self, text: str, variables: dict[str, str] | None = None) -> Output:
        """Run a block in the shell that runs all blocks, so that variables and the directory persist.

        Args:
            variables: set for this block only.

        Raises:
            AssertionError: a command failed or the block timed out.
        """
        block, out, err = (self.root.parent / name for name in ("block", "out", "err"))
        assignments = "".join(f"export {name}='{value}'\n" for name, value in (variables or {}).items())
        block.write_text(assignments + self.to_local(text))
        source = f"source '{block}' </dev/null >'{out}' 2>'{err}'"
        if variables:
            source = f"( {source} )"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{source}; printf '\\x1e'\n".encode())
        self._shell.stdin.flush()
        timer = threading.Timer(BLOCK_TIMEOUT, os.killpg, (self._shell.pid, signal.SIGKILL))
        timer.start()
        received = self._shell.stdout.read(1)
        timer.cancel()
        output = Output(*(self.to_documented(path.read_text(errors="replace")) for path in (out, err)))
        assert received == END, f"a command failed or timed out:\n{text}\n{output.stdout}\n{output.stderr}"
        return output

    def run_python(self, text: str) -> Output:
        """Run a block of Python at the top of the checkout, in its virtual environment.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [str(self.root / ".venv" / "bin" / "python"), "-c", self.to_local(text)],
            cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=BLOCK_TIMEOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return Output(self.to_documented(done.stdout), self.to_documented(done.stderr))

    def close(self) -> None:
        """Stop the shell, and the embedded servers that a failed block left running."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.close()
        self._shell.wait(60)
        self._shell.stdout.close()
        for file in (self.root / ".run").glob("*.pid"):
            subprocess.run(
                ["bash", "run_tf_serving.sh", "stop"],
                cwd=self.root,
                env={**self.environment, "CONTAINER_NAME": file.stem, "ENGINE": "embedded"},
                capture_output=True,
                timeout=60,
            )

    def _copy_files(self) -> None:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)
        settings = self.root / "lib" / "settings.sh"
        text = self.to_local(settings.read_text())
        settings.write_text(re.sub(r'(setting IMAGE_NAME "?)tfserving', rf"\1{self.prefix}-tfserving", text))
        client = self.root / "tf_rpc_client.py"
        client.write_text(self.to_local(client.read_text()))
        author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for arguments in (
            ["init", "--quiet"],
            ["add", "--all"],
            [*author, "commit", "--quiet", "-m", "Copy"],
        ):
            subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)

    def _create_venv(self) -> None:
        """Create a virtual environment that uses the packages of the running one."""
        venv = self.root / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = venv.glob("lib/python*/site-packages")
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(borrowed)]
        (packages / "borrowed.pth").write_text("".join(lines))
        command = shutil.which("saved_model_cli", path=sysconfig.get_path("scripts"))
        assert command, "saved_model_cli, which comes with TensorFlow, is not installed"
        (venv / "bin" / "saved_model_cli").symlink_to(command)
        pip = venv / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec "{venv}/bin/python" -m pip "$@"\n')
        pip.chmod(0o755)
        with (self.root / "requirements.txt").open() as requirements:
            mark = subprocess.run(["cksum"], stdin=requirements, check=True, capture_output=True, text=True)
        (venv / ".requirements").write_text(mark.stdout)

    def _start_shell(self) -> subprocess.Popen[bytes]:
        shell = subprocess.Popen(
            ["bash", "-s"],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert shell.stdin is not None
        shell.stdin.write(b"set -e\n")
        return shell

    def _port(self, port: str) -> str:
        """A free port for each; those of a documented ten follow each other, since replicas count up."""
        while port not in self._ports:
            first = random.randrange(10000, 32000, 10)
            if str(first) in self._ports.values():
                continue
            with contextlib.suppress(OSError):
                for number in range(first, first + 10):
                    socket.create_server(("127.0.0.1", number)).close()
                self._ports |= {f"{port[:-1]}{digit}": f"{first + digit}" for digit in range(10)}
        return self._ports[port]
