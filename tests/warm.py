"""Runs commands, each in a fork of this process, which has loaded the libraries by then.

Loading them takes seconds, of which a test that waits for one line of error learns nothing.
A line of JSON in (`argv`, `cwd`, `env`, `out`, `err`, `seconds`), a line with the number of the
process out. How it ended stands in a file `OUT.status`, once it has.
"""

import gc
import json
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

# Loaded for what is forked.
# ruff: noqa: F401
import hydra
import lightning.pytorch
import matplotlib.figure
import mlflow.tracking
import optuna
import pandas as pd
import pyarrow.parquet
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics

# What is not forked: threads, and with them what they hold.
assert threading.active_count() == 1, threading.enumerate()
gc.freeze()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those ended that wait

for line in sys.stdin:
    task = json.loads(line)
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            sys.stdout.write(pipe.read())
        sys.stdout.flush()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(reading)
    if child := os.fork():
        os.write(writing, b"%d\n" % child)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        draft = Path(f"{task['out']}.draft")
        draft.write_text(str(os.waitstatus_to_exitcode(status)))
        draft.rename(f"{task['out']}.status")
        os._exit(0)
    os.close(writing)
    signal.alarm(task["seconds"])
    for target, path in enumerate([os.devnull, task["out"], task["err"]]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), target)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.argv = task["argv"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()
