"""A copy of the checkout in which the commands of the README can be run without touching what is outside.

The README uses the default ports, names and places. A copy has others, which are free, and says so in its
scripts, in the commands that are run in it, and backwards in what they print.
"""

from __future__ import annotations

import os
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

from pages import ROOT

PORT = re.compile(r"\b8[5-9][0-9]{2}\b")
CONTAINER = re.compile(r"(?<=CONTAINER_NAME[= ])([a-z][\w-]*)")
DEADLINE = 600.0  # for one block; nothing here takes a tenth of it
END = b"\x1e"


@dataclass(frozen=True)
class Done:
    """What a block printed."""

    out: str
    err: str


class Copy:
    """The files that git knows or would take, in a directory of their own.

    Args:
        directory: where; it must be empty.
        environment: variables for the commands.
        path: directories to look for commands before all others.
    """

    def __init__(self, directory: Path, environment: dict[str, str], path: Sequence[Path] = ()) -> None:
        self.prefix = f"tfserving-readme-{uuid.uuid4().hex[:8]}"
        self.root = directory / "checkout"
        self._places = {"/tmp/": f"{directory}/tmp/"}
        self._ports: dict[str, str] = {}
        (directory / "tmp").mkdir()
        self._clone()
        self._make_venv()
        self.environment = {
            "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
            "HOME": str(directory),
            "TMPDIR": str(directory / "tmp"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **environment,
        }
        self._shell = self._start_shell()

    def local(self, text: str) -> str:
        """A command of the README as it is meant here."""
        text = PORT.sub(lambda match: self._port(match[0]), text)
        text = CONTAINER.sub(rf"{self.prefix}-\1", text)
        for theirs, ours in self._places.items():
            text = text.replace(theirs, ours)
        return text

    def public(self, text: str) -> str:
        """What a command printed here as the README shows it."""
        for theirs, ours in [*self._places.items(), *self._ports.items()]:
            text = text.replace(ours, theirs)
        return text.replace(f"{self.prefix}-", "").replace(f"{self.root}/", "")

    def bash(self, text: str, variables: dict[str, str] | None = None) -> Done:
        """Runs a block in the one shell that runs them all, so that what it sets stays.

        Args:
            variables: for this block only, on top of the shell's.

        Raises:
            AssertionError: a command in it failed, or it took too long.
        """
        block, out, err = (self.root.parent / name for name in ("block", "out", "err"))
        assigned = "".join(f"export {name}='{value}'\n" for name, value in (variables or {}).items())
        block.write_text(assigned + self.local(text))
        source = f"source '{block}' </dev/null >'{out}' 2>'{err}'"
        if variables:
            source = f"( {source} )"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{source}; printf '\\x1e'\n".encode())
        self._shell.stdin.flush()
        timer = threading.Timer(DEADLINE, os.killpg, (self._shell.pid, signal.SIGKILL))
        timer.start()
        answer = self._shell.stdout.read(1)
        timer.cancel()
        done = Done(*(self.public(path.read_text(errors="replace")) for path in (out, err)))
        assert answer == END, f"a command failed or took too long:\n{text}\n{done.out}\n{done.err}"
        return done

    def python(self, text: str) -> Done:
        """Runs a block of Python at the top of the checkout, in its environment.

        Raises:
            AssertionError: it failed, or it took too long.
        """
        done = subprocess.run(
            [str(self.root / ".venv" / "bin" / "python"), "-c", self.local(text)],
            cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return Done(self.public(done.stdout), self.public(done.stderr))

    def close(self) -> None:
        """Ends the shell, and the embedded servers that a failed command has left."""
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

    def _clone(self) -> None:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, names.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)
        settings = self.root / "lib" / "settings.sh"
        text = self.local(settings.read_text())
        settings.write_text(re.sub(r'(setting IMAGE_NAME "?)tfserving', rf"\1{self.prefix}-tfserving", text))
        command = self.root / "tf_rpc_client.py"
        command.write_text(self.local(command.read_text()))
        author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for arguments in (
            ["init", "--quiet"],
            ["add", "--all"],
            [*author, "commit", "--quiet", "-m", "Copy"],
        ):
            subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)

    def _make_venv(self) -> None:
        """A virtual environment with the packages of the running one: nothing is installed."""
        venv = self.root / ".venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (packages,) = venv.glob("lib/python*/site-packages")
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(borrowed)]
        (packages / "borrowed.pth").write_text("".join(lines))
        command = shutil.which("saved_model_cli", path=sysconfig.get_path("scripts"))
        assert command, "saved_model_cli comes with TensorFlow and is not there"
        (venv / "bin" / "saved_model_cli").symlink_to(command)
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
        if port not in self._ports:
            taken = set(self._ports.values())
            while port not in self._ports:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    number = str(free.getsockname()[1])
                if number not in taken:
                    self._ports[port] = number
        return self._ports[port]
