"""Serve what is deployed: TorchServe, and the gateway before it."""

from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="serve", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Serve until told to stop."""
    # Imported here: `--help` and `--cfg` answer without it.
    from fakenews.serving.serve import serve

    serve(cfg)


if __name__ == "__main__":
    cli.run(main)
