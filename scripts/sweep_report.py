"""Report what a sweep has found, and write its best trial as an experiment."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="sweep_report", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Report the study that `cfg` names."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.tuning.report_job import report_sweep

    report_sweep(cfg)


if __name__ == "__main__":
    cli.run(main)
