"""Hydra's sweeper behind `python train.py -m sweep=...`.

It extends the Optuna sweeper of Hydra: the same distributions and launchers, but a study
that prunes, continues, survives its processes, and is shared by as many as one likes.
"""

from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper


# Hydra imports this module at each start: what is heavy waits until there is a sweep.
class StudySweeper(OptunaSweeper):
    """Searches the study that the node `sweep` of the configuration describes."""

    def __init__(self) -> None:
        # What the base class would do with them is done otherwise.
        super().__init__(
            sampler=None,
            direction=None,
            storage=None,
            study_name=None,
            n_trials=0,
            n_jobs=1,
            max_failure_rate=0,
            custom_search_space=None,
            params=None,
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search until the study has its trials.

        Args:
            arguments: Overrides of the command line; distributions among them are searched.

        Raises:
            FakeNewsError: The sweep cannot start or go on, or was interrupted.
        """
        from fakenews.tuning.job import search

        base = self.sweeper
        assert base.config and base.launcher and base.hydra_context  # noqa: S101, PT018 of setup
        search(
            base.config,
            arguments,
            launcher=base.launcher,
            loader=base.hydra_context.config_loader,
        )
