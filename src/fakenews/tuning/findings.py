"""What a study has found by now: one view of it, taken at one moment."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fakenews.tuning.importances import Importances, judge, quiet

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
RUNNING, WAITING, INTERRUPTED = "running", "waiting", "interrupted"

_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
    TrialState.WAITING: WAITING,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """A study at one moment.

    Attributes:
        study: A copy of it in memory, which no worker changes.
        name: Of the study.
        objectives: Their names, in the order of a trial's values.
        maximise: Whether more is better, for each.
        trials: All but those that were interrupted and queued again, by number.
        interrupted: The numbers of those.
        best: The best trial, or the Pareto front with the best by the first objective
            first; empty before a trial is complete.
        space: What each parameter of the trials was drawn from.
        searched: The same in words, also of parameters that no trial has yet.
    """

    study: optuna.Study
    name: str
    objectives: tuple[str, ...]
    maximise: tuple[bool, ...]
    trials: Sequence[FrozenTrial]
    interrupted: frozenset[int]
    best: Sequence[FrozenTrial]
    space: dict[str, BaseDistribution]
    searched: dict[str, str]

    @property
    def single(self) -> bool:
        """Whether there is one objective."""
        return len(self.objectives) == 1

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials, the best by the first objective first, then the newest."""
        found = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        return sorted(found, key=lambda trial: (self.loss(trial), -trial.number))

    @cached_property
    def ranked(self) -> list[FrozenTrial]:
        """The trials as a reader wants them: the best first, of all others the newest."""
        front = {trial.number for trial in self.best}
        order = (COMPLETE, PRUNED, RUNNING, WAITING, FAILED)
        others = [t for t in self.trials if t.state is not TrialState.COMPLETE]
        others.sort(key=lambda trial: (order.index(self.state(trial)), -trial.number))
        return [*self.best, *(t for t in self.complete if t.number not in front), *others]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state; states without one are left out."""
        found = Counter(map(self.state, self.trials))
        order = (COMPLETE, PRUNED, FAILED, RUNNING, WAITING)
        return {name: found[name] for name in order if found[name]}

    @cached_property
    def importances(self) -> list[Importances]:
        """How important the parameters are, for each objective."""
        return [judge(self.complete, number) for number in range(len(self.objectives))]

    @cached_property
    def params(self) -> list[str]:
        """Every parameter: the most important by the first objective first, then by name."""
        shares = self.importances[0].shares
        return sorted(self.searched, key=lambda name: (-shares.get(name, 0), name))

    def state(self, trial: FrozenTrial) -> str:
        """A word for the state of a trial."""
        return INTERRUPTED if trial.number in self.interrupted else _STATES[trial.state]

    def loss(self, trial: FrozenTrial, objective: int = 0) -> float:
        """A complete trial's value with its sign such that less is better."""
        value: float = trial.values[objective]
        return -value if self.maximise[objective] else value


def find(study: optuna.Study) -> Findings:
    """Look at a study, also while workers go on with it.

    Args:
        study: Any; attributes that a sweep sets (`name`, `objectives`, `space`) are used.
    """
    attributes = study.user_attrs
    count = len(study.directions)
    objectives = tuple(map(str, attributes.get("objectives") or ()))
    if len(objectives) != count:
        plain = ["value"] if count == 1 else [f"value {n}" for n in range(1, count + 1)]
        objectives = tuple(study.metric_names or plain)
    trials = study.get_trials(deepcopy=False)
    maximise = tuple(direction is StudyDirection.MAXIMIZE for direction in study.directions)
    copy = _copy(study, trials, objectives)
    interrupted = frozenset(_interrupted(trials))
    space: dict[str, BaseDistribution] = {}
    for trial in trials:
        space |= trial.distributions
    stored = {name: _stored(text) for name, text in (attributes.get("space") or {}).items()}
    return Findings(
        study=copy,
        name=str(attributes.get("name") or study.study_name),
        objectives=objectives,
        maximise=maximise,
        trials=[trial for trial in trials if trial.number not in interrupted],
        interrupted=interrupted,
        best=_best(copy, maximise),
        space=space,
        searched={name: _words(found) for name, found in space.items()} | stored,
    )


def shown(value: object) -> str:
    """A parameter's or an objective's value, as it would be written in YAML but shorter."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, IntDistribution | FloatDistribution):
        words = f"{shown(distribution.low)} to {shown(distribution.high)}"
        if distribution.log:
            return f"{words}, logarithmic"
        plain = 1 if isinstance(distribution, IntDistribution) else None
        step = distribution.step
        return words if step == plain else f"{words}, step {shown(step)}"
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(shown, distribution.choices))
    return repr(distribution)


def _copy(
    study: optuna.Study, trials: Sequence[FrozenTrial], objectives: Sequence[str]
) -> optuna.Study:
    with quiet():
        storage = InMemoryStorage()
        number = storage.create_new_study(study.directions, study.study_name)
        for trial in trials:
            # Not by `Study.add_trial`: what was stored is not to be judged again.
            storage.create_new_trial(number, template_trial=trial)
        copy = optuna.load_study(study_name=study.study_name, storage=storage)
        copy.set_metric_names(list(objectives))
    return copy


def _best(study: optuna.Study, maximise: Sequence[bool]) -> list[FrozenTrial]:
    if len(maximise) == 1:
        try:
            return [study.best_trial]
        except ValueError:  # no trial is complete
            return []

    def losses(trial: FrozenTrial) -> list[float]:
        pairs = zip(trial.values, maximise, strict=True)
        return [*(-value if more else value for value, more in pairs), trial.number]

    return sorted(study.best_trials, key=losses)


def _interrupted(trials: Sequence[FrozenTrial]) -> Iterator[int]:
    """Trials that were stopped from outside and whose parameters were queued again."""
    # Optuna notes in a trial which it repeats.
    repeated = {n for t in trials for n in t.system_attrs.get("retry_history", ())}
    for trial in trials:
        attributes = trial.user_attrs
        again = trial.number in repeated and "error" not in attributes
        if trial.state is TrialState.FAIL and (attributes.get("interrupted") or again):
            yield trial.number


def _stored(text: str) -> str:
    """What a sweep has noted of a parameter: words, or the JSON of a distribution."""
    try:
        content, end = json.JSONDecoder().raw_decode(text)
        distribution = optuna.distributions.json_to_distribution(json.dumps(content))
    except (ValueError, TypeError, KeyError):
        return text
    # A condition may stand behind it.
    return _words(distribution) + text[end:]
