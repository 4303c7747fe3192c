"""Judge the predictions of a served model: drift, decay, errors, latency, volume."""

import sys
from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS, check, without_paths

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="monitor", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Monitor what `cfg` describes; the exit status says what was found."""
    # Imported here: `--help` and `--cfg` answer without it.
    from hydra.utils import instantiate

    from fakenews.monitoring.verdict import EXIT

    call = without_paths(cfg)
    check(call)
    sys.exit(EXIT[instantiate(call, _convert_="all")])


if __name__ == "__main__":
    cli.run(main)
