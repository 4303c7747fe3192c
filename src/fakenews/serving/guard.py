"""TorchServe as one process group, which ends with it and with whoever started it.

Run as a module with TorchServe's own arguments. Workers outlive a TorchServe that is killed,
and TorchServe would outlive its starter; the starter holds the other end of standard input.
"""

import os
import signal
import sys
import threading
from types import FrameType

import psutil

# Seconds for TorchServe to end by itself when its starter is gone.
_GRACE = 10


def main() -> None:
    """Run TorchServe until it ends, then end what is left of its process group."""
    signal.signal(signal.SIGTERM, _pass_on)
    # Of a terminal: the starter decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_starter, daemon=True).start()
    from ts.model_server import start

    try:
        start()
    finally:
        sys.stdout.flush()
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _pass_on(number: int, frame: FrameType | None) -> None:
    """Ask TorchServe to end, but not its workers, which it ends itself."""
    del frame
    children = psutil.Process().children()
    for child in children:
        child.send_signal(number)
    if not children:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _follow_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
