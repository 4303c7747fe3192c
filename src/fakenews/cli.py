"""What every command shares: one clear line for a user's mistake, and the exit status.

0    the work is done
1    a mistake that the user can mend, or a bug (with its traceback)
75   stopped by `trainer.max_time`: run again with `resume=auto`
130  interrupted by Ctrl-C
143  terminated
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fakenews.config import closest, register_resolvers
from fakenews.errors import FakeNewsError, Interrupted

register_resolvers()

# OpenMP's threads burn their core while they wait; with another process on the machine
# that slows a training tenfold, and without one it gains nothing. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_FULL_ERROR = "HYDRA_FULL_ERROR"
_traceback_wanted = os.environ.get(_FULL_ERROR) == "1"


def run(command: Callable[[], Any]) -> None:
    """Run a Hydra application; report errors in one line.

    `HYDRA_FULL_ERROR=1` shows the traceback of any error.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # Otherwise Hydra prints exceptions itself and exits; here they are wanted.
    os.environ[_FULL_ERROR] = "1"
    try:
        command()
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except Exception as error:
        report(error)
        raise
    finally:
        if not _traceback_wanted:
            del os.environ[_FULL_ERROR]


def report(error: BaseException) -> None:
    """Print a user's mistake in one line and exit; return for anything else."""
    from hydra.errors import HydraException

    cause = _user_error(error)
    if isinstance(cause, Interrupted):
        _stop(str(cause), cause.status)
    if _traceback_wanted or cause is None:
        return
    if isinstance(cause, FakeNewsError):
        _stop(f"error: {_one_line(cause)}", 1)
    if isinstance(cause, OSError) and not isinstance(cause, HydraException):
        _stop(f"error: {cause.strerror}: {cause.filename or 'free some space'}", 1)
    _stop(f"error: {_explain(cause)}", 1)


class ReportErrors(Callback):
    """Hydra callback that reports a job's error before Hydra prints it at length."""

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report the error of a single run; a sweep deals with its jobs' errors."""
        del config
        result: JobReturn = kwargs["job_return"]
        if result.status is JobStatus.FAILED:
            report(result._return_value)  # noqa: SLF001 its property prints before it raises


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    raise Interrupted("terminated", status=128 + number)


def _stop(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _one_line(error: FakeNewsError) -> str:
    faults = getattr(error, "faults", None)
    if faults is None or len(faults) == 1:
        return str(error)
    return "\n  - ".join([f"{len(faults)} faults:", *faults])


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _user_error(error: BaseException) -> BaseException | None:
    """The error to show: ours, wherever Hydra wrapped it, before a library's own."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    chain = list(_chain(error))
    for kind in (FakeNewsError, HydraException, OmegaConfBaseException):
        found = next((link for link in chain if isinstance(link, kind)), None)
        if found is not None:
            if "instantiat" in type(found).__name__.lower():
                continue
            return found
    full_disk = (28, 122)  # ENOSPC, EDQUOT
    return next(
        (link for link in chain if isinstance(link, OSError) and link.errno in full_disk), None
    )


def _explain(error: BaseException) -> str:
    """Hydra's message in one line, with the near match of an unknown option."""
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        near = closest(option, error.options or ())
        hint = f"did you mean {group}={near}? " if near else ""
        return f"{group}={option} does not exist: {hint}choose {', '.join(error.options or ())}"
    key = getattr(error.__cause__, "full_key", None)
    if key is not None and "not in struct" in str(error.__cause__):
        parent = key.rpartition(".")[0]
        meant = re.search(r"Did you mean: '(.+?)'", str(error.__cause__))
        hint = f"did you mean {parent + '.' if parent else ''}{meant[1]}?" if meant else ""
        return f"{key} is not an option: {hint or '--cfg job shows the options'}"
    first, *_ = [*filter(None, map(str.strip, str(error).splitlines())), repr(error)]
    cause = next(iter(str(error.__cause__ or "").splitlines()), "")
    return f"{first} {cause}".strip()
