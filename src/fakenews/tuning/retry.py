"""Trials whose process was killed: their parameters are tried again, but not for ever."""

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

RETRIES = 2
"""How often the parameters of a killed trial are tried again."""

_HISTORY = "retry_history"


def kills(trial: FrozenTrial) -> int:
    """How often these parameters had been killed before this trial."""
    history: Sequence[int] = trial.system_attrs.get(_HISTORY, ())
    return len(history)


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
        return
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            # Those of samplers, which must know the trial again.
            system_attrs=trial.system_attrs | {_HISTORY: history},
        )
    )
