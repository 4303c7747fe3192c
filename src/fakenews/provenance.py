"""Where a run comes from: commit, uncommitted changes, package versions, time."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

SHAPE_DATA = (
    "fakenews",
    "datasketch",
    "ftfy",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
)
"""Packages whose version may change what is read, grouped or split."""

SHAPE_MODELS = (
    *SHAPE_DATA,
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "spacy",
    "hydra-core",
    "mlflow",
    "optuna",
)
"""Packages whose version may change what is trained."""


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of those of `packages` that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def all_packages() -> list[str]:
    """Every installed package as `name==version`, sorted."""
    # What is asked of a distribution is read from its file each time.
    read = (found.metadata for found in importlib.metadata.distributions())
    return sorted({f"{found['Name']}=={found['Version']}" for found in read})


def git(root: Path) -> dict[str, Any]:
    """`commit` and `diff` of a working copy; outside one, an image's FAKENEWS_COMMIT."""
    commit = _git(root, "rev-parse", "HEAD")
    diff = _git(root, "diff", "--no-ext-diff", "HEAD") if commit else None
    return {"commit": commit or os.environ.get("FAKENEWS_COMMIT") or None, "diff": diff or None}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 fixed arguments
            ["git", *arguments],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def stamp() -> str:
    """The time, to the second, as it stands in tags and files."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
