"""Judge whether a challenger may replace a champion."""

import sys
from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS, check, without_paths

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="gate", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Judge what `cfg` describes; the exit status says whether it is accepted."""
    # Imported here: `--help` and `--cfg` answer without it.
    from hydra.utils import instantiate

    call = without_paths(cfg)
    check(call)
    sys.exit(instantiate(call, _convert_="all").exit_status)


if __name__ == "__main__":
    cli.run(main)
