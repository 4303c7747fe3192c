"""Make the archive of a bundle, which TorchServe serves."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="export", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Export what `cfg` describes."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.serving.export import export

    export(cfg)


if __name__ == "__main__":
    cli.run(main)
