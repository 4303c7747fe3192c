"""Tracking of runs."""


def none() -> None:
    """The logger of `logger=none`."""
