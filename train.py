"""Train a classifier: data, features, model, fit, calibrate, evaluate, bundle, track."""

from contextlib import suppress
from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="train", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> float:
    """Run the job that `cfg` describes; return the validation metric."""
    # Imported here: `--help` and `--cfg` answer without them.
    from omegaconf.errors import OmegaConfBaseException

    from fakenews.data.checks import check_files
    from fakenews.rules import PREPARED

    # An option without a value is told by the check of them all.
    with suppress(OmegaConfBaseException):
        if cfg.data.get("_target_") != PREPARED:
            check_files(cfg.data)

    # Its libraries take seconds, which no one should wait for to learn of a missing file.
    from fakenews.training.job import train

    return train(cfg)


if __name__ == "__main__":
    cli.run(main, open_nodes=["data.storage_options", "cluster.options"])
