"""How good the models are on public data: means of several seeds on leak-free test splits.

    python benchmarks/quality.py --covid FILE --constraint TRAIN TEST

Each line of the table is `python train.py` with the overrides that it names. A run that
has finished is not repeated, so the command can be interrupted and given again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# One more than a training has by default: better on the validation rows of every seed.
EPOCHS = "trainer.max_epochs=4"
SHOWN = ("average_precision", "macro_f1", "weighted_f1", "auroc", "ece")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the table: overrides of train.py, run once for each seed."""

    name: str
    overrides: tuple[str, ...]


def settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    """The lines that the given files allow."""
    if arguments.covid:
        covid = ("data=covid", f"data.path={arguments.covid}")
        for model in arguments.models:
            for text, normalise in (("raw", "false"), ("normalised", "true")):
                yield Setting(
                    name=f"covid-{text}-{model}",
                    overrides=(*covid, f"data.normalise={normalise}", f"model={model}"),
                )
    if arguments.constraint:
        train, test = arguments.constraint
        for model in arguments.models:
            yield Setting(
                name=f"constraint-{model}",
                overrides=(
                    "data=constraint",
                    f"data.path={train}",
                    f"data.test_path={test}",
                    f"model={model}",
                ),
            )


def run(setting: Setting, seed: int, extra: list[str]) -> dict[str, float]:
    """Test metrics of one run, made now or before."""
    name = ",".join([setting.name, EPOCHS, *sorted(extra)]).replace("/", "_")
    folder = ROOT / "runs" / "quality" / name / str(seed)
    result = folder / "result.json"
    if not result.is_file():
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            *setting.overrides,
            EPOCHS,
            f"seed={seed}",
            "logger=none",
            "bootstrap=100",
            f"name=quality-{setting.name}",
            f"hydra.run.dir='{folder}'",
            *extra,
        ]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "output.txt").open("w") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output)  # noqa: S603
    metrics: dict[str, float] = json.loads(result.read_text())["metrics"]["test"]
    return metrics


def main() -> None:
    """Run what is missing, and print the table as it grows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--covid", type=Path, help="the COVID Fake News Dataset's CSV")
    parser.add_argument("--constraint", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--models", nargs="+", default=["fusion", "tfidf"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("overrides", nargs="*", help="further overrides of train.py")
    arguments = parser.parse_args()
    # Those after --models are taken for some.
    arguments.overrides += [name for name in arguments.models if "=" in name]
    arguments.models = [name for name in arguments.models if "=" not in name]
    if not (arguments.covid or arguments.constraint):
        parser.error("give --covid or --constraint")
    print(f"| setting, {len(arguments.seeds)} seeds | {' | '.join(SHOWN)} |")
    print(f"|---|{'---|' * len(SHOWN)}", flush=True)
    for setting in settings(arguments):
        found = [run(setting, seed, arguments.overrides) for seed in arguments.seeds]
        cells = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in ([metrics[name] for metrics in found] for name in SHOWN)
        ]
        print(f"| {setting.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
