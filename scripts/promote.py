"""Promote registered versions, try them, and take them back: registry and serving together."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="promote", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Do what `cfg.action` says."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.retraining.promote import promote

    promote(cfg)


if __name__ == "__main__":
    cli.run(main)
