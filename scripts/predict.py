"""Score a file with a bundle, row by row into another file."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS, check

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="predict", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Predict what `cfg` describes."""
    # Imported here: `--help` and `--cfg` answer without it.
    from hydra.utils import instantiate

    check(cfg)
    instantiate(cfg, _convert_="all")


if __name__ == "__main__":
    cli.run(main)
