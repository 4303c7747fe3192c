"""Prepare a dataset of any size for training: shards that are streamed."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="prepare", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Prepare, list or verify what `cfg` describes."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.preparation.job import prepare

    prepare(cfg)


if __name__ == "__main__":
    cli.run(main, open_nodes=["storage_options"])
