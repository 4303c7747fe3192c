"""Show the whole loop: train, serve, drift, alarm, retrain, compare, promote, roll back."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS, check

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="demo", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Show what `cfg.demo` describes."""
    # Imported here: `--help` and `--cfg` answer without it.
    from hydra.utils import instantiate

    check(cfg)
    instantiate(cfg.demo, _convert_="all")


if __name__ == "__main__":
    cli.run(main)
