"""Which bundle answers: a folder, the newest run, or a registered model."""

import tempfile
from pathlib import Path

from fakenews.bundle import BundleContent, read_bundle
from fakenews.errors import ConfigError
from fakenews.tracking.artifacts import download_bundle, run_of_model
from fakenews.tracking.folder import latest_finished


class Answering:
    """The bundle that answers, which another may replace while this process runs.

    Args:
        bundle: Folder of it, or of its run; `latest`: the newest run.
        registered: Or a registered model, as NAME@ALIAS or NAME/VERSION.
        uri: Of MLflow's store that has it.
        runs: Folder of runs.

    Raises:
        ConfigError: Not one of the two is given.
    """

    def __init__(
        self, *, bundle: str | None, registered: str | None, uri: str, runs: Path
    ) -> None:
        if (bundle is None) == (registered is None):
            raise ConfigError("give one of bundle=FOLDER and registered=NAME@champion")
        self._bundle, self._registered = bundle, registered
        self._uri, self._runs = uri, runs
        self._read: str | None = None

    def changed(self) -> bool:
        """Whether an alias means another run than the one that was read."""
        return self._registered is not None and self._run() != self._read

    def content(self) -> BundleContent:
        """Of the bundle that is meant now."""
        if self._bundle is not None:
            latest = self._bundle == "latest"
            return read_bundle(latest_finished(self._runs) if latest else self._bundle)
        self._read = self._run()
        with tempfile.TemporaryDirectory() as folder:
            return read_bundle(
                download_bundle(uri=self._uri, run=self._read, folder=Path(folder))
            )

    def _run(self) -> str:
        assert self._registered is not None  # noqa: S101 one of the two is given
        return run_of_model(uri=self._uri, model=self._registered)
