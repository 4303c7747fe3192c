"""What every command shares: one clear line for a user's mistake, and the exit status.

0    the work is done
1    a mistake that the user can mend, or a bug (with its traceback)
75   stopped by `trainer.max_time`: run again with `resume=auto`
130  interrupted by Ctrl-C
143  terminated
"""

import contextlib
import errno
import gc
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fakenews import launch
from fakenews.config import (
    closest,
    options_ending,
    options_with,
    public_options,
    register_resolvers,
)
from fakenews.errors import FakeNewsError, Interrupted, chain, interruption

log = logging.getLogger(__name__)

register_resolvers()

# OpenMP's threads burn their core while they wait. On a machine of one's own that makes a
# training some per cent faster; beside other work, several times slower. Read when torch
# loads.
if os.getloadavg()[0] > 0.5:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Loading PyTorch, Lightning and what they import makes a million objects that stay. Python
# would look through them for garbage again and again, a seventh of the time of a start.
gc.set_threshold(100_000, 10, 10)

_DISTRIBUTION = re.compile(r"=\s*(tag|int|float|interval|range|choice)\(")

# What a user can mend outside: a full disk, a folder that may not be written.
_MENDABLE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "choose another folder, or get the right to write there",
    errno.EPERM: "choose another folder, or get the right to write there",
    errno.EROFS: "choose another folder",
    errno.ENOTDIR: "choose another folder",
    errno.EISDIR: "choose another file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose another folder, or mend the link",
    errno.EIO: "check the disk, or choose another",
    errno.ENOENT: "choose another folder",
}

# Seconds, within which a line of a log is written, and Python has tidied up.
_SOON = 0.05

# Of `trainer.max_time`, which a restart would only begin to count again.
_OUT_OF_TIME = 75

_FULL_ERROR = "HYDRA_FULL_ERROR"
# Beside it when we have set it, for processes that inherit it.
_OURS = "FAKENEWS_REPORTS_ERRORS"
_traceback_wanted = os.environ.get(_FULL_ERROR) == "1" and _OURS not in os.environ


def run(command: Callable[[], Any], *, open_nodes: Sequence[str] = ()) -> None:
    """Run a Hydra application; report errors in one line.

    `HYDRA_FULL_ERROR=1` shows the traceback of any error.

    Args:
        command: Decorated by `hydra.main`.
        open_nodes: Nodes that take other keys than those of `conf/` too.
    """
    if (status := launch.verdict()) is not None:
        sys.exit(status)  # torchrun starts this rank again for nothing
    launch.end_with_launcher()
    before, hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook
    sys.unraisablehook = _unraisable
    _read_arguments(open_nodes)
    # Otherwise Hydra prints exceptions itself and exits; here they are wanted.
    os.environ[_FULL_ERROR] = "1"
    if not _traceback_wanted:
        os.environ[_OURS] = "1"
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has had enough, as in `--help | head`: nothing more can be written,
        # not even at exit.
        launch.without_reader()
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        stopped = interruption(error)
        if isinstance(stopped, KeyboardInterrupt):
            _stop("interrupted", 130)
        report(stopped or error)
        if isinstance(error, ValueError) and not _traceback_wanted and not _in_job(error):
            # Hydra's own checks of its flags.
            _stop(f"error: {error}", 1)
        raise
    finally:
        # What is left is the interpreter's end, where an exception would only be printed.
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook
        if not _traceback_wanted:
            del os.environ[_FULL_ERROR], os.environ[_OURS]


def _read_arguments(open_nodes: Sequence[str]) -> None:
    """Refuse passwords, and let nodes bring new keys."""
    for argument in sys.argv[1:]:
        if re.search(r"://[^/\s@]*:[^/\s@]+@", argument):
            # Before Hydra writes the arguments to files.
            _stop(
                f"error: {argument.partition('=')[0]} holds a password, and a configuration is "
                "written to files: set it in the environment instead (PGPASSWORD; for MLflow "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)",
                1,
            )
    for node in open_nodes:
        # Hydra lets a whole node bring new keys only if told so.
        sys.argv[1:] = [re.sub(rf"^(?={node}=\{{)", "++", given) for given in sys.argv[1:]]


def report(error: BaseException) -> None:
    """Print a user's mistake in one line and exit; return for anything else."""
    cause = _user_error(error)
    if isinstance(cause, Interrupted):
        if cause.status == _OUT_OF_TIME:
            launch.final(cause.status)
        _stop(str(cause) if launch.speaks() else "", cause.status)
    if _traceback_wanted or cause is None:
        return
    if not launch.final(1):
        _stop("", 1)
    jobs = [note for note in getattr(error, "__notes__", ()) if note.startswith("job ")]
    _stop(": ".join(["error", *jobs[:1], _message(cause)]), 1)


class ReportErrors(Callback):
    """Hydra callback that reports a job's error before Hydra prints it at length."""

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report the error of a single run, and leave no folder that holds nothing."""
        result: JobReturn = kwargs["job_return"]
        if result.status is not JobStatus.FAILED:
            return
        error: BaseException = result._return_value  # noqa: SLF001 its property prints before it raises
        if _user_error(error):
            _discard(config)
        report(error)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say at once which job of a sweep failed; a stopped one stops the sweep."""
        del kwargs
        failed = job_return.status is JobStatus.FAILED
        if config.hydra.mode is not RunMode.MULTIRUN or not failed:
            return
        error: BaseException = job_return._return_value  # noqa: SLF001 as above
        cause = _user_error(error)
        if OmegaConf.select(config, "sweep") is not None:
            return  # the sweep knows what to do about it
        if isinstance(cause, Interrupted) and cause.status > 128:
            report(error)
        job = f"job {config.hydra.job.num} ({' '.join(config.hydra.overrides.task)})"
        error.add_note(job)
        if cause is not None:
            log.error("%s: %s", job, _message(cause))
            _discard(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave no file of the sweep among the runs, of which each has its configuration."""
        del kwargs
        runs = OmegaConf.select(config, "paths.runs")
        if runs is not None and runs == config.hydra.sweep.dir:
            folder = Path(runs)
            (folder / "multirun.yaml").unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # when no job was started


def _discard(config: DictConfig) -> None:
    """Leave no run folder that holds nothing."""
    if not OmegaConf.is_missing(config.hydra.runtime, "output_dir"):
        from fakenews.tracking.folder import discard_empty

        discard_empty(Path(config.hydra.runtime.output_dir))


def _terminate(number: int, frame: FrameType | None) -> None:
    stack = (found for found, _ in traceback.walk_stack(frame))
    if any(found.f_globals.get("__name__") == "logging" for found in stack):
        # A log's handler prints what is raised within it, and goes on.
        _ask_again(number)
        return
    raise Interrupted("terminated", status=128 + number)


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """A signal may come while Python tidies up, where what is raised is lost."""
    error = lost.exc_value
    if isinstance(error, KeyboardInterrupt):
        _ask_again(signal.SIGINT)
    elif isinstance(error, Interrupted) and error.status > 128:
        _ask_again(error.status - 128)
    else:
        sys.__unraisablehook__(lost)


def _ask_again(number: int) -> None:
    main = threading.main_thread().ident or 0
    threading.Timer(_SOON, signal.pthread_kill, (main, number)).start()


def _stop(message: str, status: int) -> NoReturn:
    if message:
        print(message, file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _in_job(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "run_job" for frame, _ in frames)


def _user_error(error: BaseException) -> BaseException | None:
    """The error to show: ours, wherever Hydra wrapped it, before a library's own."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    links = list(chain(error))
    for kind in (FakeNewsError, HydraException, OmegaConfBaseException):
        found = next((link for link in links if isinstance(link, kind)), None)
        if found is not None and not isinstance(found, InstantiationException):
            return found
    return next((link for link in links if isinstance(link, OSError) and _mendable(link)), None)


def _mendable(error: OSError) -> bool:
    if error.errno == errno.ENOENT:
        # A folder cannot be made, as in /proc. A file that is not there is a bug: those
        # that a user names are looked for.
        frames = traceback.walk_tb(error.__traceback__)
        return any(frame.f_code.co_name == "mkdir" for frame, _ in frames)
    return error.errno in _MENDABLE


def _message(cause: BaseException) -> str:
    """One line, but for a list of faults."""
    from hydra.errors import HydraException

    if isinstance(cause, FakeNewsError):
        faults = getattr(cause, "faults", ())
        if len(faults) > 1:
            # Not their number: a line may stand for many rows.
            return "\n  - ".join(["several faults:", *faults])
        return str(cause)
    if isinstance(cause, OSError) and not isinstance(cause, HydraException):
        where = f" {cause.filename}" if cause.filename else ""
        return f"{cause.strerror}:{where}; {_MENDABLE[cause.errno or 0]}"
    return _explain(cause)


def _explain(error: BaseException) -> str:
    """Hydra's message in one line, with the near match of an unknown option."""
    from hydra.errors import MissingConfigException, OverrideParseException

    lines = [*filter(None, map(str.strip, str(error).splitlines())), repr(error)]
    if isinstance(error, OverrideParseException):
        return _unread(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = public_options(error.options or ())
        near = closest(option, options)
        hint = f"did you mean {group}={near}? " if near else ""
        choice = f"{hint}choose {', '.join(options)}" if options else "see --help"
        return f"{group or 'configuration'}={option} does not exist: {choice}"
    if found := re.match(r"In '(\w+)/(\w+)': Invalid Defaults List override", lines[0]):
        return f"{found[1]}={found[2]} does not go with this command: see --help"
    if "Ambiguous value" in lines[0]:
        given = lines[0].partition("'")[2].rstrip("'")
        key, _, values = given.partition("=")
        return (
            f"{given} is more than one value: add -m to run one after another, or write "
            f"'{key}=[{values}]' for a list"
        )
    unknown = getattr(error.__cause__, "full_key", None)
    if unknown is not None and "not in struct" in str(error.__cause__):
        parent = unknown.rpartition(".")[0]
        meant = re.search(r"Did you mean: '(.+?)'", str(error.__cause__))
        hint = f"did you mean {parent + '.' if parent else ''}{meant[1]}?" if meant else ""
        if groups := options_with(unknown):
            hint = f"it is one of {', '.join(groups)}"
        elif longer := options_ending(unknown):
            hint = f"did you mean {' or '.join(longer)}?"
        return f"{unknown} is not an option: {hint or '--cfg job shows the options'}"
    # A resolver's error comes wrapped, without its own type.
    first = re.sub(r"^\w+Error raised while resolving interpolation: ", "", lines[0])
    reason, *_ = [*str(error.__cause__ or "").splitlines(), ""]
    return first if reason in first else f"{first} {reason}"


def _unread(override: str) -> str:
    if _DISTRIBUTION.search(override):
        return (
            f"cannot read the distribution {override!r}: write interval(a, b), "
            "tag(log, interval(a, b)), range(a, b, step) or choice(a, b, ...)"
        )
    return (
        f"cannot read the argument {override!r}: write KEY=VALUE, and a value with special "
        """characters in quotes inside quotes, as in 'data.text="a, b"'"""
    )
