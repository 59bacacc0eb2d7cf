"""Generate descriptors.pb from protos/*.proto:  python -m tfserving.wire.generate [--check]

The package uses a descriptor set instead of generated `_pb2.py` code: that code registers its messages in
protobuf's default pool, where they clash with TensorFlow's copy of them, and it rejects protobuf runtimes
that are older than its generator. Needs grpcio-tools.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

HERE = Path(__file__).parent
PROTOS = HERE / "protos"
TARGET = HERE / "descriptors.pb"


def generate() -> bytes:
    """The serialized FileDescriptorSet of the files in protos/ and their imports, dependencies first."""
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors.pb"
        files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("*.proto"))
        arguments = [f"-I{PROTOS}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *arguments, *files]) != 0:
            raise SystemExit("generate: protoc failed; see its messages above")
        return out.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tfserving.wire.generate", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if descriptors.pb is stale"
    )
    check = parser.parse_args().check
    generated = generate()
    if check:
        parse = descriptor_pb2.FileDescriptorSet.FromString
        if parse(generated) == parse(TARGET.read_bytes()):
            return 0
        print(f"{TARGET} is stale; run python -m tfserving.wire.generate", file=sys.stderr)
        return 1
    TARGET.write_bytes(generated)
    return 0


if __name__ == "__main__":
    sys.exit(main())
