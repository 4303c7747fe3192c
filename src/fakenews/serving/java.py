"""The Java that TorchServe runs on."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from fakenews.errors import ServingError

_OLDEST = 17


def java_home(given: str | None) -> Path:
    """The folder in which bin/java is a Java for TorchServe.

    Args:
        given: By the user; None takes JAVA_HOME, else what is on the PATH.

    Raises:
        ServingError: There is none, or it is too old.
    """
    advice = f"install Java {_OLDEST} or newer, or give serve.torchserve.java_home=FOLDER"
    folder = given or os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    if folder is None and on_path is None:
        raise ServingError(f"TorchServe needs Java, and there is none: {advice}")
    program = Path(folder, "bin", "java") if folder else Path(str(on_path))
    try:
        done = subprocess.run(  # noqa: S603 the user's own Java
            [program, "-version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServingError(f"{program} cannot be run ({reason}): {advice}") from error
    told = done.stderr + done.stdout
    # Before 9 it was 1.8.
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    if found is None:
        first = next(iter(told.splitlines()), f"exit status {done.returncode}")
        raise ServingError(f"{program} does not say its version ({first}): {advice}")
    if int(found[1]) < _OLDEST:
        raise ServingError(f"{program} is Java {found[1]}, too old for TorchServe: {advice}")
    return program.absolute().parent.parent
