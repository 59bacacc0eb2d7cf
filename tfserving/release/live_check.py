"""A comparison of a new version with the promoted one on the servers, before any caller gets it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tfserving.client.rpc_client import TfRpcClient
from tfserving.errors import FailedPreconditionError, InvalidInputError, TfServingError
from tfserving.release.change import Step
from tfserving.release.config_edit import add_model
from tfserving.release.differences import Tolerance, compare_outputs
from tfserving.release.rollout import ModelFacts
from tfserving.release.server_goals import Goal
from tfserving.release.servers import ServerConnections
from tfserving.repository.config import Specific
from tfserving.repository.model_names import quote

if TYPE_CHECKING:
    from tfserving.export.samples import Samples

_LONGEST_NAME = 128


def plan_check(
    facts: ModelFacts, version: int, samples_file: Path, tolerance: Tolerance, connections: ServerConnections
) -> tuple[Step, ...]:
    """Steps that come before those of a promotion: each server runs both versions on the samples.

    A version that a server does not serve yet is loaded as a model with another name, so that no caller gets
    it, and unloaded before the promotion loads it again.

    Args:
        samples_file: an .npz file with an array for each input; the first dimension counts the samples.
        tolerance: how much the outputs may differ.

    Raises:
        InvalidInputError: the samples do not fit the promoted version, or there is no server.
        FailedPreconditionError: no version is served that the new one could be compared with.
    """
    from tfserving.export.samples import load_samples, match_samples

    old = facts.state.promoted
    if not connections.servers:
        raise InvalidInputError(
            "--check compares versions on servers, and there is none; name one with --server"
        )
    if old is None or old == version or any(old not in served for served in facts.served):
        raise FailedPreconditionError(
            f"--check needs another version of model {quote(facts.name)} that every server serves; omit it",
            model=facts.name,
        )
    signatures = connections.client(connections.servers[0]).metadata(facts.name, version=old)
    samples = match_samples(signatures, load_samples(samples_file))

    def compare(name: str) -> None:
        for server in connections.servers:
            client = connections.client(server)
            _compare(client, str(server), samples, tolerance, (name, version), (facts.name, old))

    about = f"comparing version {version} of {facts.name} with version {old}"
    if all(version in served for served in facts.served):
        goal = Goal(facts.name, (version,))
        return (Step(facts.text, goal, facts.start, lambda: compare(facts.name), about),)
    hidden = f"{facts.name[: _LONGEST_NAME - 28]}.check-{version}"
    text = add_model(facts.text, hidden, facts.config.base_path, Specific((version,)))
    return (
        Step(text, Goal(hidden, (version,)), facts.kept, lambda: compare(hidden), about),
        Step(facts.text, Goal(hidden, (), only=True), facts.start),
    )


def _compare(
    client: TfRpcClient,
    server: str,
    samples: Samples,
    tolerance: Tolerance,
    new: tuple[str, int],
    old: tuple[str, int],
) -> None:
    """Compare two versions, each the name of a model and a version, on one server."""
    pairs = []
    for number, inputs in enumerate(samples.inputs, start=1):
        outputs = []
        for model, version in (new, old):
            try:
                outputs.append(
                    client.infer(inputs, model=model, version=version, signature=samples.signature)
                )
            except TfServingError as error:
                raise FailedPreconditionError(
                    f"server {server}: version {version} of model {quote(old[0])} fails on sample {number}: "
                    f"{error.server_message or error}",
                    model=old[0],
                ) from error
        pairs.append(outputs)
    differences = compare_outputs([one for one, _ in pairs], [other for _, other in pairs], tolerance)
    different = [f"output {one.name!r} {one.describe()}" for one in differences if not one.is_within]
    if different:
        raise FailedPreconditionError(
            f"server {server}: versions {new[1]} and {old[1]} of model {quote(old[0])} differ: "
            f"{'; '.join(different)}",
            model=old[0],
        )
