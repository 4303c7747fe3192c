"""Replace a served model: decide, train on new labels, compare, try, promote."""

import sys
from typing import TYPE_CHECKING

import hydra

from fakenews import cli
from fakenews.config import TARGETS, check, without_paths

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(config_path="../conf", config_name="retrain", execution_whitelist=TARGETS)
def main(cfg: "DictConfig") -> None:
    """Run the cycle that `cfg` describes, or a step; the exit status says what is next."""
    # Imported here: `--help` and `--cfg` answer without it.
    from hydra.utils import instantiate

    from fakenews.retraining.cycle import EXIT

    call = without_paths(cfg)
    check(call)
    sys.exit(EXIT[instantiate(call, _convert_="all")])


if __name__ == "__main__":
    cli.run(main)
