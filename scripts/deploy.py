"""Deploy archives to a running TorchServe: replace, try, promote, roll back, scale."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="deploy", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Do what `cfg.action` says."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.serving.deploy import deploy

    deploy(cfg)


if __name__ == "__main__":
    cli.run(main)
