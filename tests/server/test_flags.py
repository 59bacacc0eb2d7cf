import csv
from dataclasses import fields
from pathlib import Path

import pytest

from tfserving.server import flags
from tfserving.server.server_options import CPUS, BatchingOptions, LoadOptions, RuntimeOptions, ServerOptions

RECORDED = Path(__file__).parents[1] / "conformance" / "flags.tsv"


def parse(*argv):
    return flags.parse_flags(["--model_base_path=/models/m", *argv])


def test_has_every_recorded_flag_with_its_default():
    with RECORDED.open() as file:
        recorded = list(csv.DictReader(file, delimiter="\t"))
    ours = {flag.name: flag for flag in flags.FLAGS if not flag.own}
    assert {row["flag"] for row in recorded} == ours.keys()
    kinds = {"int32": int, "int64": int, "string": str, "bool": bool, "float": float}
    cpus = {"CPUs": CPUS, "4 x CPUs": 4 * CPUS}
    for row in recorded:
        flag = ours[row["flag"]]
        assert type(flag.default) is kinds[row["type"]], flag.name
        default = row["default"]
        expected = (
            cpus[default]
            if default in cpus
            else default == "true"
            if type(flag.default) is bool
            else type(flag.default)(default)
        )
        assert flag.default == expected, flag.name


def test_every_flag_is_listed_once():
    names = [flag.name for flag in flags.FLAGS]
    assert len(names) == len(set(names))


def test_without_flags_the_options_have_their_defaults():
    given, defaults = parse(), ServerOptions()
    for group in fields(ServerOptions):
        if group.name != "models":
            assert getattr(given, group.name) == getattr(defaults, group.name)
    assert given.models.base_path == "/models/m"
    assert given.models.name == "default"


@pytest.mark.parametrize(
    ("spelling", "value"), [("", True), ("=true", True), ("=1", True), ("=false", False), ("=0", False)]
)
def test_accepts_every_spelling_of_a_boolean(spelling, value):
    assert parse(f"--enable_model_warmup{spelling}").runtime.warmup is value


def test_the_last_value_of_a_flag_counts():
    options = parse("--port=1", "--grpc_max_threads", "64", "--port=2")
    assert options.listen.grpc_port == 2
    assert options.inference.max_threads == 64


def test_names_the_flags_that_have_no_effect():
    options = parse("--enable_profiler=false", "--enable_profiler=true", "--num_tflite_pools=9")
    assert options.ignored == ("num_tflite_pools",)


def test_accepts_an_unsupported_flag_with_its_default():
    assert parse("--use_alts_credentials=false").ignored == ()


def test_the_version_needs_no_model():
    assert flags.parse_flags(["--version"]).print_version


def test_models_dir_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("--models_dir=models").models.models_dir == tmp_path / "models"
    assert parse().models.models_dir is None


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], RuntimeOptions()),
        (["--saved_model_tags=serve,gpu"], RuntimeOptions(tags=("serve", "gpu"))),
        (["--per_process_gpu_memory_fraction=0.5"], RuntimeOptions(gpu_memory_fraction=0.5)),
        (["--enable_model_warmup=false"], RuntimeOptions(warmup=False)),
        (
            ["--xla_gpu_compilation_enabled", "--xla_auto_jit"],
            RuntimeOptions(xla_gpu=True, xla_auto_jit=True),
        ),
        (["--num_request_iterations_for_warmup=3"], RuntimeOptions(warmup_iterations=3)),
        (["--num_request_iterations_for_warmup=0"], RuntimeOptions(warmup_iterations=1)),
    ],
    ids=repr,
)
def test_sets_the_runtime_options(argv, expected):
    assert parse(*argv).runtime == expected


@pytest.mark.parametrize(
    ("argv", "intra_op", "inter_op"),
    [
        ([], 0, 0),
        (["--tensorflow_intra_op_parallelism=3"], 3, 0),
        (["--tensorflow_inter_op_parallelism=3"], 0, 3),
        (["--tensorflow_session_parallelism=3"], 3, 3),
        (["--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2"], 2, 0),
        (["--tensorflow_session_parallelism=3", "--tensorflow_inter_op_parallelism=2"], 0, 2),
    ],
    ids=repr,
)
def test_session_parallelism_counts_only_alone(argv, intra_op, inter_op):
    runtime = parse(*argv).runtime
    assert (runtime.intra_op_threads, runtime.inter_op_threads) == (intra_op, inter_op)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], LoadOptions(threads=CPUS, max_retries=5, retry_seconds=60.0)),
        (["--num_load_threads=3"], LoadOptions(threads=3, max_retries=5, retry_seconds=60.0)),
        (
            ["--max_num_load_retries=1", "--load_retry_interval_micros=500000"],
            LoadOptions(threads=CPUS, max_retries=1, retry_seconds=0.5),
        ),
    ],
)
def test_sets_the_load_options(argv, expected):
    assert parse(*argv).loading == expected


def test_sets_the_batching_options():
    options = parse("--enable_batching", "--batching_parameters_file=f").batching
    assert options == BatchingOptions(enabled=True, parameters_file="f", per_model=False)
    assert parse("--enable_per_model_batching_parameters").batching.per_model


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ports=1"], "unrecognized arguments: --ports=1"),
        (["--por=1"], "unrecognized arguments: --por=1"),
        (["--port=many"], "invalid int value: 'many'"),
        (["--enable_batching=maybe"], "'maybe' is not a boolean"),
        (["--use_alts_credentials"], "--use_alts_credentials=True is not supported"),
        (["--port=65536"], "--port=65536 is not a valid port (1-65535, or 0 to disable the API)"),
        (["--rest_api_port=-1"], "--rest_api_port=-1 is not a valid port"),
        (["--port=8501", "--rest_api_port=8501"], "are both 8501"),
        (["--batching_parameters_file=x"], "no effect without --enable_batching"),
        (["--xla_auto_jit"], "--xla_auto_jit needs XLA; add --xla_gpu_compilation_enabled for GPUs or"),
        (
            [f"--tensorflow_{name}_parallelism=2" for name in ("session", "intra_op", "inter_op")],
            "give either the first or the other two",
        ),
        (["--model_base_path="], "no model to serve"),
        (["models"], "unrecognized arguments: models"),
    ],
)
def test_rejects_invalid_flags(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        flags.parse_flags(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert [flag.name for flag in flags.FLAGS if not flag.rejection and f"--{flag.name}" not in text] == []
