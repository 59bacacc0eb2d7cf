"""Which versions and labels a model gets by each command of a release, and in which steps.

Callers without version or label get the highest version that is loaded. A label may name only a version that
is loaded. So versions are loaded first, then labels move, then versions are unloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tfserving.errors import (
    FailedPreconditionError,
    NotFoundError,
    RepositoryError,
    TfServingError,
    UnavailableError,
)
from tfserving.release.change import PlannedChange, Step
from tfserving.release.config_edit import (
    add_model,
    parse_config_file,
    remove_label,
    remove_model,
    set_label,
    set_policy,
)
from tfserving.release.history import HistoryRecord, ModelState, find_rollback_target
from tfserving.release.server_goals import Goal
from tfserving.release.servers import ServerConnections, available_versions, has_responded
from tfserving.repository import versions
from tfserving.repository.completeness import check_version_dir
from tfserving.repository.config import ModelConfig, ServerConfig, Specific, VersionPolicy
from tfserving.repository.diagnostics import list_numbers
from tfserving.repository.model_names import quote

STABLE, CANARY = "stable", "canary"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before a change.

    Attributes:
        text: the text of models.config.
        config: the model in it.
        on_disk: its versions on disk and their directories.
        served: for each server, the versions that can be called.
    """

    text: str
    config: ModelConfig
    on_disk: Mapping[int, Path]
    served: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def state(self) -> ModelState:
        """The state in the config."""
        return describe_state(self.config, self.on_disk)

    @property
    def in_use(self) -> tuple[int, ...]:
        """The versions that callers can reach on a server; without servers, those that the policy selects."""
        reached = {version for found in self.served for version in found} or set(self.state.versions)
        return tuple(sorted(reached & set(self.on_disk) if self.on_disk else reached))

    @property
    def start(self) -> Goal:
        """What each server serves now, as far as all of them serve the same."""
        if not self.served:
            return Goal()
        common = set(self.served[0]).intersection(*self.served[1:])
        same = all(set(found) == common for found in self.served)
        return Goal(self.name, tuple(sorted(common)), only=same)

    @property
    def kept(self) -> Goal:
        """`start`, while other versions may be available as well."""
        return Goal(self.name, self.start.available) if self.start.model else Goal()


def gather_facts(
    text: str, name: str, *, config_path: Path, models_dir: Path, connections: ServerConnections
) -> ModelFacts:
    """Look up a model in models.config, on disk and on the servers.

    Raises:
        NotFoundError: models.config does not contain the model.
        ConfigError: a server would reject models.config.
        UnavailableError: a server does not respond.
    """
    config = find_model(parse_config_file(text, config_path), name, config_path)
    served = tuple(find_served(connections, name))
    return ModelFacts(text, config, find_on_disk(config.base_path, models_dir), served)


def find_model(config: ServerConfig, name: str, path: Path) -> ModelConfig:
    """A model of a configuration.

    Raises:
        NotFoundError: there is none with this name.
    """
    for model in config.models:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in config.models) or "none"
    raise NotFoundError(
        f"{path} has no model {quote(name)} (its models: {names}); add it with `tfserving add {name}`",
        model=name,
    )


def find_on_disk(base_path: str, models_dir: Path) -> dict[int, Path]:
    """The versions of a base_path; none if its directory does not exist here."""
    try:
        return versions.find_versions(versions.resolve(base_path, models_dir))
    except RepositoryError:
        return {}


def find_served(connections: ServerConnections, name: str) -> Iterable[tuple[int, ...]]:
    """Yield for each server the versions of a model that can be called.

    Raises:
        UnavailableError: a server does not respond, or rejects the request.
    """
    for server in connections.servers:
        try:
            yield available_versions(connections.states(server, [name])[name])
        except TfServingError as error:
            does = "rejects the request" if has_responded(error) else "does not respond"
            raise UnavailableError(
                f"server {server} {does}, so nothing was changed: {error}", address=server.address
            ) from error


def describe_state(config: ModelConfig, on_disk: Collection[int]) -> ModelState:
    """The state of a model in a config; without versions on disk, a specific policy selects all it lists."""
    listed = config.policy.versions if isinstance(config.policy, Specific) else ()
    selected = config.policy.select(on_disk or listed)
    labels = dict(config.labels)
    return ModelState(selected, labels, _find_promoted(selected, labels))


def _find_promoted(selected: Collection[int], labels: Mapping[str, int]) -> int | None:
    # During a canary, callers use the label stable.
    if STABLE in labels and CANARY in labels and labels[STABLE] in selected:
        return labels[STABLE]
    return max(selected, default=None)


def plan_promotion(
    facts: ModelFacts,
    version: int,
    *,
    operation: str = "promote",
    first: Sequence[Step] = (),
    observe: Callable[[], None] | None = None,
) -> PlannedChange:
    """Plan to make `version` the one that callers without version or label get.

    Labels that name the version promoted so far, and the labels stable and canary, move to it. Other labels
    keep their versions loaded; all other versions are unloaded at the end.

    Args:
        operation: for the history.
        first: steps that come before.
        observe: called when callers without version or label get the version: before the old one is unloaded
            if that is lower.

    Raises:
        RepositoryError: the version is not on disk or not complete.
        FailedPreconditionError: a label keeps a higher version loaded, which these callers would get.
    """
    check_on_disk(facts, version)
    state = facts.state
    moving = [
        label for label, now in state.labels.items() if label in (STABLE, CANARY) or now == state.promoted
    ]
    labels = {label: version if label in moving else now for label, now in state.labels.items()}
    final = {version, *labels.values()}
    if max(final) > version:
        label = next(label for label, now in labels.items() if now == max(final))
        raise FailedPreconditionError(
            f"label {label!r} keeps version {max(final)} of model {quote(facts.name)} loaded, and callers "
            f"without version get the highest one that is loaded, not {version}; move the label first: "
            f"tfserving label {facts.name} {label}={version}",
            model=facts.name,
        )
    loaded = {*facts.in_use, *final}
    change = _plan_versions(facts, operation, version, loaded, labels, final, promoted=version)
    steps = list(change.steps)
    if observe is not None:
        # Going back is faster while the old version is loaded; callers get a lower version only without it.
        at = -2 if version == max(loaded) and loaded != final else -1
        steps[at] = replace(steps[at], action=observe)
    return replace(change, steps=(*first, *steps))


def plan_canary(facts: ModelFacts, version: int, *, labels_in_use: bool) -> PlannedChange:
    """Plan to load `version` beside the promoted one, with the labels canary and stable.

    Raises:
        RepositoryError: the version is not on disk or not complete.
        FailedPreconditionError: callers without version would get the canary, and `labels_in_use` is False;
            or the version is the promoted one, or there is none.
    """
    check_on_disk(facts, version)
    name, state = facts.name, facts.state
    stable = state.promoted
    if stable is None or not facts.in_use:
        raise FailedPreconditionError(
            f"model {quote(name)} serves no version that could be stable; promote one: "
            f"tfserving promote {name} {version}",
            model=name,
        )
    if not state.labels.get(STABLE) and stable not in facts.in_use:
        stable = max(facts.in_use)
    if version == stable:
        raise FailedPreconditionError(
            f"version {version} of model {quote(name)} is the promoted one; a canary is another version",
            model=name,
        )
    labels = {**state.labels, STABLE: stable, CANARY: version}
    old = state.labels.get(CANARY)
    final = {*facts.in_use, stable, version, *labels.values()}
    if old is not None and old not in labels.values():
        final.discard(old)
    if version == max(final) and not labels_in_use:
        raise FailedPreconditionError(
            f"version {version} of model {quote(name)} would be the highest one that is loaded, and callers "
            f"without label or version would all get it. If all of them use the label {STABLE} "
            f"(`tfserving label {name} {STABLE}={stable}` sets it), pass --labels-in-use. Otherwise serve "
            "the canary from a separate group of servers behind the gateway of deploy/, and set its share "
            "with `tfserving traffic`",
            model=name,
        )
    return _plan_versions(facts, "canary", version, {*facts.in_use, *final}, labels, final, promoted=stable)


def _plan_versions(
    facts: ModelFacts,
    operation: str,
    version: int,
    loaded: Collection[int],
    labels: Mapping[str, int],
    final: Collection[int],
    *,
    promoted: int,
) -> PlannedChange:
    """Load `loaded`, set `labels`, keep `final`."""
    name = facts.name
    union, rest = tuple(sorted(loaded)), tuple(sorted(final))
    with_union = set_policy(facts.text, name, Specific(union))
    with_labels = _set_labels(with_union, name, labels)
    with_rest = set_policy(with_labels, name, Specific(rest))
    steps = [
        Step(with_union, Goal(name, (version,)), facts.kept, about=f"loading version {version} of {name}"),
        Step(with_labels, Goal(name, (version,)), facts.kept, about=f"setting labels of {name}"),
        Step(with_rest, Goal(name, rest, only=True), facts.kept, about=f"unloading other versions of {name}"),
    ]
    needed = [step for index, step in enumerate(steps) if index == 0 or step.text != steps[index - 1].text]
    if needed[-1].forward != steps[-1].forward:
        last = needed[-1]
        needed[-1] = Step(last.text, steps[-1].forward, last.backward, about=last.about)
    after = ModelState(rest, dict(labels), promoted)
    return PlannedChange(operation, name, facts.state, after, tuple(needed), facts.start)


def _set_labels(text: str, name: str, labels: Mapping[str, int]) -> str:
    for label, version in labels.items():
        text = set_label(text, name, label, version)
    return text


def plan_labels(facts: ModelFacts, labels: Mapping[str, int | None]) -> PlannedChange:
    """Plan to set labels; None removes one.

    Raises:
        FailedPreconditionError: a version is not loaded, or a label to remove does not exist.
    """
    name, state = facts.name, facts.state
    text = facts.text
    after = dict(state.labels)
    loaded = set(facts.start.available) if facts.served else set(state.versions)
    for label, version in labels.items():
        if version is None:
            if label not in after:
                known = ", ".join(sorted(after)) or "none"
                raise FailedPreconditionError(
                    f"model {quote(name)} has no label {label!r} (its labels: {known})", model=name
                )
            del after[label]
            text = remove_label(text, name, label)
            continue
        if version not in loaded or version not in state.versions:
            raise FailedPreconditionError(
                f"label {label!r}: version {version} of model {quote(name)} is not loaded (loaded: "
                f"{list_numbers(loaded) or 'none'}); load it with `tfserving promote {name} {version}` or "
                f"`tfserving canary {name} {version}`",
                model=name,
            )
        after[label] = version
        text = set_label(text, name, label, version)
    end = ModelState(state.versions, after, _find_promoted(state.versions, after))
    step = Step(text, facts.kept, facts.kept, about=f"setting labels of {name}")
    return PlannedChange("label", name, state, end, (step,), facts.start)


def plan_addition(
    text: str, name: str, base_path: str, policy: VersionPolicy | None, *, models_dir: Path
) -> PlannedChange:
    """Plan to serve one more model.

    Args:
        base_path: as in models.config.
        policy: None for the newest version.

    Raises:
        FailedPreconditionError: models.config has the model already.
        RepositoryError: the policy selects no version on disk, or one that is not complete.
    """
    new = add_model(text, name, base_path, policy)
    config = ModelConfig(name, base_path) if policy is None else ModelConfig(name, base_path, policy)
    found = find_on_disk(base_path, models_dir)
    state = describe_state(config, found)
    listed = set(policy.versions) if isinstance(policy, Specific) else set()
    missing = listed - set(found)
    if not found or not state.versions or missing:
        what = f"no version {list_numbers(missing)}" if missing else "no version"
        raise RepositoryError(
            f"model {quote(name)} has {what} in {versions.resolve(base_path, models_dir)} (found "
            f"{list_numbers(found) or 'none'}); publish it first: tfserving publish SOURCE --name {name}",
            model=name,
        )
    for version in state.versions:
        check_version_dir(found[version])
    step = Step(new, Goal(name, state.versions), about=f"loading {name}")
    return PlannedChange("add", name, None, state, (step,), Goal(name, (), only=True))


def plan_removal(facts: ModelFacts, config: ServerConfig) -> PlannedChange:
    """Plan to serve a model no longer; its versions stay on disk.

    Raises:
        FailedPreconditionError: it is the last model.
    """
    name = facts.name
    if len(config.models) == 1:
        raise FailedPreconditionError(
            f"{quote(name)} is the only model, and a server needs one; add another first, or stop the server",
            model=name,
        )
    step = Step(remove_model(facts.text, name), Goal(name, (), only=True), about=f"unloading {name}")
    return PlannedChange("remove", name, facts.state, None, (step,), facts.start)


def check_on_disk(facts: ModelFacts, version: int) -> None:
    """Check that a version can be loaded.

    Raises:
        RepositoryError: it is not on disk, or not complete.
    """
    if version not in facts.on_disk:
        raise RepositoryError(
            f"model {quote(facts.name)} has no version {version} on disk (found "
            f"{list_numbers(facts.on_disk) or 'none'}); publish it, or pass another --models-dir",
            model=facts.name,
        )
    check_version_dir(facts.on_disk[version])


def is_in_force(facts: ModelFacts, change: PlannedChange) -> bool:
    """Whether models.config and all servers are already as a change would leave them."""
    wanted = change.after.versions if change.after else ()
    served = all(set(found) == set(wanted) for found in facts.served)
    return change.steps[-1].text == facts.text and served


def choose_rollback_version(facts: ModelFacts, records: list[HistoryRecord]) -> int:
    """The version to go back to: during a canary the stable one, else the one that was promoted before.

    Raises:
        FailedPreconditionError: the history has none.
    """
    state = facts.state
    stable, canary = (state.labels.get(label) for label in (STABLE, CANARY))
    if stable is not None and stable == state.promoted and canary not in (None, stable):
        return stable
    target = find_rollback_target(records, facts.name, state.promoted)
    if target is None:
        raise FailedPreconditionError(
            f"the history has no version of model {quote(facts.name)} that was promoted before "
            f"{state.promoted}; name one of {list_numbers(facts.on_disk) or 'none on disk'} with --to",
            model=facts.name,
        )
    return target
