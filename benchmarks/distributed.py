"""Data-parallel training: what a second rank costs, and a model of many more.

    python benchmarks/distributed.py                       # 1 and 2 ranks of this machine
    python benchmarks/distributed.py --restart             # a rank is killed
    python benchmarks/distributed.py --model --step 0.7 --bytes 91e6

Ranks are processes of one thread each that talk through gloo on this machine. All arms run
in the same processes, in turns, on the same batches. `--model` measures nothing: it prints
what the given constants would mean for several nodes. See README.md beside this file, and
docs/scale.md.
"""

import argparse
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from distributed_model import BANDWIDTHS, NODES, Constants, model_table
from rich.console import Console
from rich.table import Table

WORKER = Path(__file__).with_name("distributed_worker.py")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or calculate, print the tables, and write them as JSON."""
    options = _options(arguments)
    console = Console()
    if options.model:
        console.print(
            model_table(
                Constants(
                    compute=options.step,
                    gradient_bytes=options.bytes,
                    latency=options.latency,
                    buckets=options.buckets,
                    loader=options.loader,
                    overlap=options.overlap,
                ),
                bandwidths=options.bandwidths,
                nodes=options.nodes,
                uneven=options.uneven,
            )
        )
        return
    if options.restart:
        from distributed_restart import restarts

        found = restarts(options)
        console.print(restart_table(found))
    else:
        from training import machine

        measured = measure(options)
        found = measured | {"machine": machine(1), "summary": summary(measured)}
        console.print(step_table(found))
        console.print(size_table(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--ranks", type=int, default=2, help="processes of a thread each")
    parser.add_argument("--rows", type=int, default=1024, help="training rows; 0: all")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a pass")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of each arm")
    parser.add_argument("--restart", action="store_true", help="kill a rank of train.py")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    given = parser.add_argument_group("the model, which measures nothing")
    given.add_argument("--model", action="store_true", help="print its table and stop")
    given.add_argument("--step", type=float, help="seconds of a step of one rank")
    given.add_argument("--bytes", type=float, help="of gradients, summed up in each step")
    given.add_argument("--bandwidths", type=float, nargs="+", default=BANDWIDTHS, help="Gbit/s")
    given.add_argument("--latency", type=float, default=50e-6, help="seconds of a message")
    given.add_argument("--buckets", type=int, default=1, help="all-reduces of a step")
    given.add_argument(
        "--loader", type=float, default=0.0, help="seconds a step waits for rows"
    )
    given.add_argument("--overlap", type=float, default=0.0, help="seconds that are hidden")
    given.add_argument("--uneven", type=float, nargs="+", help="of each of --nodes, 0.1: 10%%")
    given.add_argument("--nodes", type=int, nargs="+", default=NODES, help="of a rank each")
    parser.add_argument("override", nargs="*", help="of conf/train.yaml: KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    if options.model and None in (options.step, options.bytes):
        parser.error("--model needs --step and --bytes: measure them first, or assume some")
    if min(options.bandwidths) <= 0 or min(options.nodes) < 1:
        parser.error("--bandwidths are more than 0 Gbit/s, --nodes at least 1")
    if options.uneven is not None and len(options.uneven) != len(options.nodes):
        parser.error(
            f"--uneven has {len(options.uneven)} values for {len(options.nodes)} nodes"
        )
    if options.ranks < 2 and not options.model:
        parser.error("--ranks is at least 2: one rank alone is measured beside them")
    if min(options.steps, options.repeats) < 1:
        parser.error("--steps and --repeats are at least 1")
    return options


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What the ranks found."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ["OMP_NUM_THREADS"] = "1"
    # Ranks say themselves what is wrong, and torchrun at length that they did.
    for name in ("torch.distributed.elastic", "torch.distributed.run", "torch.elastic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        request = {
            "rows": options.rows,
            "steps": options.steps,
            "repeats": options.repeats,
            "threads": 1,
            "overrides": options.override,
            "out": str(out),
        }
        started = run.parse_args(
            [
                *("--standalone", f"--nproc-per-node={options.ranks}"),
                *(str(WORKER), json.dumps(request)),
            ]
        )
        try:
            run.run(started)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            sys.exit(f"error: rank {rank} ended with status {failure.exitcode}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def summary(found: dict[str, Any]) -> dict[str, list[float]]:
    """Figures of each repeat; a step takes as long as its slowest rank."""
    slowest = {name: [max(ranks) for ranks in one] for name, one in found["seconds"].items()}
    repeats = list(
        zip(*(slowest[name] for name in ("alone", "ddp", "no_sync", "all_reduce")), strict=True)
    )
    return {
        "alone_seconds": slowest["alone"],
        "ddp_seconds": slowest["ddp"],
        "no_sync_seconds": slowest["no_sync"],
        "all_reduce_seconds": slowest["all_reduce"],
        "small_all_reduce_seconds": slowest["latency"],
        "ddp_to_alone": [ddp / alone for alone, ddp, _, _ in repeats],
        "no_sync_to_alone": [apart / alone for alone, _, apart, _ in repeats],
        "exposed_seconds": [ddp - apart for _, ddp, apart, _ in repeats],
        "exposed_share": [(ddp - apart) / ddp for _, ddp, apart, _ in repeats],
        "hidden_seconds": [bare - (ddp - apart) for _, ddp, apart, bare in repeats],
        "speed_up": [found["ranks"] * alone / ddp for alone, ddp, _, _ in repeats],
    }


def step_table(found: dict[str, Any]) -> Table:
    """Median and range over the repeats."""
    table = Table(
        title=f"{found['ranks']} ranks of 1 thread, batches of {found['batch_size']} rows, "
        f"{len(found['seconds']['ddp'])} passes of {found['steps']} steps"
    )
    for column in ("", "median", "min", "max"):
        table.add_column(column, justify="right" if column else "left")
    names = {
        "alone_seconds": "step, 1 rank without DDP (s)",
        "ddp_seconds": f"step, {found['ranks']} ranks, DDP (s)",
        "no_sync_seconds": f"step, {found['ranks']} ranks, no_sync (s)",
        "exposed_seconds": "exposed communication (s)",
        "all_reduce_seconds": "bare all-reduce of the gradients (s)",
        "hidden_seconds": "of it hidden by the backward pass (s)",
        "small_all_reduce_seconds": "bare all-reduce of one number (s)",
        "ddp_to_alone": "step with DDP, as a multiple of alone",
        "no_sync_to_alone": "step with no_sync, as a multiple of alone",
        "exposed_share": "share of communication in a step",
        "speed_up": f"rows/s of {found['ranks']} ranks, as a multiple of 1",
    }
    for key, name in names.items():
        values = found["summary"][key]
        shown = (median(values), min(values), max(values))
        form = "{:.1%}" if key == "exposed_share" else "{:.3f}"
        form = "{:.6f}" if key == "small_all_reduce_seconds" else form
        table.add_row(name, *(form.format(value) for value in shown))
    return table


def size_table(found: dict[str, Any]) -> Table:
    """Bytes, and what else a rank does."""
    table = Table(title="sizes")
    table.add_column("")
    table.add_column("", justify="right")
    buckets = found["bucket_bytes"]
    saved = found["checkpoint"]
    table.add_row("trainable parameters", f"{found['parameters']:,}")
    table.add_row("gradient bytes a step and rank", f"{found['gradient_bytes']:,}")
    table.add_row("all-reduces of DDP (MB)", " + ".join(f"{b / 1e6:.1f}" for b in buckets))
    for ranks, share in found["uneven"].items():
        table.add_row(f"longest batch of {ranks} beside their mean", f"+{share:.1%}")
    table.add_row("making a batch (s)", f"{found['loader_seconds']:.6f}")
    table.add_row("checkpoint (bytes)", f"{saved['bytes']:,}")
    table.add_row("saving it (s)", f"{median(saved['seconds']):.2f}")
    return table


def restart_table(found: dict[str, Any]) -> Table:
    """Seconds after a rank was killed."""
    table = Table(title=f"a rank of {found['ranks']} is killed; seconds until")
    for column in ("", "median", "min", "max"):
        table.add_column(column, justify="right" if column else "left")
    for key, name in {
        "started": "new ranks are started",
        "saved": "a step of theirs is in the checkpoint",
    }.items():
        values = found[key]
        table.add_row(name, *(f"{v:.1f}" for v in (median(values), min(values), max(values))))
    return table


if __name__ == "__main__":
    if importlib.util.find_spec("lightning") is None:
        sys.exit("error: pip install -e '.[train,bench]'")
    main()
