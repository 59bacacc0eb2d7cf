import csv
from pathlib import Path

import pytest

from tfserving.server import flags

REAL = Path(__file__).parents[1] / "conformance" / "flags.tsv"


def test_every_flag_of_the_real_server_is_known_with_its_default():
    with REAL.open() as file:
        real = list(csv.DictReader(file, delimiter="\t"))
    ours = {flag.name: flag for flag in flags.FLAGS if not flag.own}
    assert {row["flag"] for row in real} == ours.keys()
    kinds = {"int32": int, "int64": int, "string": str, "bool": bool, "float": float}
    cpus = {"CPUs": flags.CPUS, "4 x CPUs": 4 * flags.CPUS}
    for row in real:
        flag = ours[row["flag"]]
        assert flag.type is kinds[row["type"]], flag.name
        default = row["default"]
        expected = (
            cpus[default]
            if default in cpus
            else default == "true"
            if flag.type is bool
            else flag.type(default)
        )
        assert flag.default == expected, flag.name


def test_booleans_in_all_their_spellings():
    for spelling, value in [("", True), ("=true", True), ("=1", True), ("=false", False), ("=0", False)]:
        arguments, _ = flags.parse([f"--enable_model_warmup{spelling}"])
        assert arguments.enable_model_warmup is value


def test_a_flag_given_later_wins():
    arguments, _ = flags.parse(["--port=1", "--grpc_max_threads", "64", "--port=2"])
    assert arguments.port == 2
    assert arguments.grpc_max_threads == 64


def test_flags_without_effect_are_named():
    _, idle = flags.parse(["--enable_profiler=false", "--enable_profiler=true", "--num_tflite_pools=9"])
    assert idle == ["num_tflite_pools"]


def test_a_refused_flag_with_its_default_is_none():
    _, idle = flags.parse(["--use_alts_credentials=false"])
    assert idle == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--ports=1"], "unrecognized arguments: --ports=1"),
        (["--por=1"], "unrecognized arguments: --por=1"),
        (["--port=many"], "invalid int value: 'many'"),
        (["--enable_batching=maybe"], "'maybe' is neither true nor false"),
        (["--use_alts_credentials"], "--use_alts_credentials=True cannot be had here"),
        (["--port=99999"], "--port=99999 is no port"),
        (["--rest_api_port=-1"], "--rest_api_port=-1 is no port"),
        (["--port=8501", "--rest_api_port=8501"], "are both 8501"),
        (["--batching_parameters_file=x"], "give --enable_batching too"),
        (
            [f"--tensorflow_{name}_parallelism=2" for name in ("session", "intra_op", "inter_op")],
            "give either it or them",
        ),
        (["models"], "unrecognized arguments: models"),
    ],
)
def test_misuse(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        flags.parse(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
