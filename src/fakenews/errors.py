"""Every error a user can cause, as one tree.

    FakeNewsError
    ├── ConfigError      an option is unknown, mistyped, or contradicts another
    ├── DataError        a file, column or row cannot be used
    ├── FeatureError     features cannot be computed from this input
    ├── EncoderError     pretrained weights are missing, damaged or unreachable
    ├── TrainingError    a run cannot start, or cannot be continued
    ├── TuningError      a sweep cannot start, or cannot go on
    ├── ClusterError     a job cannot be started elsewhere, or did not end as it should
    ├── Interrupted      a run was stopped from outside, and can be continued
    ├── TrackingError    the MLflow store is locked, unreachable or refuses us
    ├── BundleError      a bundle is incomplete, changed or of another format
    ├── ServingError     a server cannot be started or reached, or a deployment not be made
    ├── MonitoringError  predictions cannot be judged, or what was found not be told
    └── RetrainingError  a model cannot be replaced, or not be compared with another

The command line prints such an error as one line (what, where, what to do) and exits
with status 1; anything else is a bug and keeps its traceback.
"""

import contextlib
from collections.abc import Iterator, Sequence


class FakeNewsError(Exception):
    """Base of every error that a user can cause and mend."""


class _Faults(FakeNewsError):
    """An error that reports all faults found at once.

    Args:
        faults: One message, or all of them, in the order found.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("; ".join(self.faults))


class ConfigError(_Faults):
    """An option is unknown, mistyped, or contradicts another."""


class DataError(_Faults):
    """A file, column or row cannot be used."""


class FeatureError(FakeNewsError):
    """Features cannot be computed from this input."""


class EncoderError(FakeNewsError):
    """Pretrained weights are missing, damaged or unreachable."""


class TrainingError(FakeNewsError):
    """A run cannot start, or cannot be continued."""


class TuningError(FakeNewsError):
    """A sweep cannot start, or cannot go on."""


class ClusterError(FakeNewsError):
    """A job cannot be started where it should run, or did not end as it should."""


class Interrupted(FakeNewsError):
    """A run was stopped from outside, saved its state, and can be continued.

    Args:
        message: What stopped it and how to continue.
        status: Exit status of the process.
    """

    def __init__(self, message: str, *, status: int = 130) -> None:
        self.status = status
        super().__init__(message)


class TrackingError(FakeNewsError):
    """The MLflow store is locked, unreachable or refuses us."""


class BundleError(FakeNewsError):
    """A bundle is incomplete, changed or of another format."""


class ServingError(FakeNewsError):
    """A server cannot be started or reached, or a deployment cannot be made."""


class MonitoringError(FakeNewsError):
    """Predictions cannot be judged, or what was found cannot be told."""


class RetrainingError(FakeNewsError):
    """A model cannot be replaced, or cannot be compared with another."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def interruption(error: BaseException) -> Interrupted | KeyboardInterrupt | None:
    """What stopped the work, if that is why there is an error.

    A signal may come while a library has something half built, and what it does then to
    tidy up fails with an error of its own: OmegaConf's copies do.
    """
    for link in chain(error):
        if isinstance(link, Interrupted | KeyboardInterrupt):
            return link
        if isinstance(link, FakeNewsError):
            return None
    return None


@contextlib.contextmanager
def resumable(how: str) -> Iterator[None]:
    """Tell how to go on when the work within is interrupted.

    Args:
        how: What was kept, and the command that continues.

    Raises:
        Interrupted: The work was interrupted.
    """
    try:
        yield
    except BaseException as error:
        stopped = interruption(error)
        if stopped is None:
            raise
        status = stopped.status if isinstance(stopped, Interrupted) else 130
        raise Interrupted(how, status=status) from error
