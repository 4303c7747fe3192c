"""Trials whose process was killed: their parameters are tried again, but not for ever."""

import logging
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

log = logging.getLogger(__name__)

RETRIES = 2
"""How often the parameters of a killed trial are tried again."""

_HISTORY = "retry_history"
_FIRST = "first_trial"


def kills(trial: FrozenTrial) -> int:
    """How often these parameters had been killed before this trial."""
    history: Sequence[int] = trial.system_attrs.get(_HISTORY, ())
    return len(history)


def place(trials: Sequence[FrozenTrial]) -> int:
    """Of the trial that comes next: how many come before it that repeat no other.

    Args:
        trials: All so far, by number.
    """
    waiting = next((trial for trial in trials if trial.state is TrialState.WAITING), None)
    until = len(trials) if waiting is None else waiting.system_attrs.get(_FIRST, waiting.number)
    return sum(_FIRST not in trial.system_attrs for trial in trials[:until])


def queue_again(study: Study, trial: FrozenTrial, *, forgiven: bool = False) -> None:
    """Queue the parameters of a killed trial, unless they were killed too often.

    Args:
        study: Of the trial.
        trial: Failed without a reason.
        forgiven: It was stopped by its user, which is not counted.
    """
    history = list(trial.system_attrs.get(_HISTORY, ()))
    if not forgiven:
        history.append(trial.number)
    if len(history) > RETRIES:
        log.warning("trial %d was stopped, as its parameters were before", trial.number)
        return
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            # Those of samplers, which must know the trial again.
            system_attrs=trial.system_attrs
            | {_HISTORY: history, _FIRST: trial.system_attrs.get(_FIRST, trial.number)},
        )
    )
    log.warning("trial %d was stopped: its parameters are queued again", trial.number)
