"""What a cluster is asked to run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that another program is to start."""

    name: str  # of its runs: letters, digits, _ - .
    run_id: str  # e.g. 2026-11-24_18-00-00.123: names the run folder
    overrides: tuple[str, ...]  # Hydra overrides of the command, `cluster...` taken out
    sweep: bool  # started with -m: a study, which several workers share
