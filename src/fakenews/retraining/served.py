"""The half of a promotion that is served: archives of registered versions, in a deployment."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from annotated_types import Gt, Lt

from fakenews.bounds import NonNegative, PositiveCount
from fakenews.retraining.journal import Half
from fakenews.retraining.standing import ModelVersion
from fakenews.serving import store, torchserve
from fakenews.serving.archive import Made
from fakenews.serving.deployment import Deployment
from fakenews.serving.state import State, change_state
from fakenews.serving.steps import deploying


class MakeDeployment(Protocol):
    """Makes a deployment, always of the same folder."""

    def __call__(self, *, confirm: Callable[[], None] | None = None) -> Deployment:
        """The deployment; `confirm` as there."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How a version comes to answer.

    Attributes:
        workers: Processes; None for as many as its archive says.
        shadow_seconds: For which it gets copies of requests first.
        canary_seconds: For which it then answers a share of the requests.
        share: That share.
        keep_previous: Leave the version before registered, for a rollback without loading.
    """

    workers: PositiveCount | None = None
    shadow_seconds: NonNegative = 0
    canary_seconds: NonNegative = 0
    share: Annotated[float, Gt(0), Lt(1)] = 0.1
    keep_previous: bool = False


@dataclass(frozen=True, kw_only=True)
class Archived:
    """An archive of a registered version.

    Attributes:
        version: Of the archive.
        path: Of the file.
    """

    version: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A deployment, and what makes archives for it.

    Attributes:
        folder: Of the deployment.
        deployment: Makes it.
        export: Makes the archive of a registered version.
        archives: Folder that exported archives are in.
    """

    folder: Path
    deployment: MakeDeployment
    export: Callable[[int], Made]
    archives: Path

    @property
    def state(self) -> State:
        """What is deployed.

        Raises:
            ServingError: The state is damaged, or of another model.
        """
        return self.deployment().state

    def archive(self, found: ModelVersion, *, again: bool) -> Archived:
        """The archive of a registered version.

        Args:
            found: The version.
            again: Take the one that has served it before, if the file is still there.

        Returns:
            The one that is deployed, or on trial, if there is one; else one that is made.

        Raises:
            FakeNewsError: It cannot be made, see `export_bundle`.
        """
        state, known = self.state, found.archive
        if known is not None and known in state.versions:
            file = state.versions[known].archive
            return Archived(version=known, path=torchserve.store(self.folder) / file)
        if again and known is not None:
            path = self.archives / f"{state.name}-{known}.mar"
            if path.is_file():
                return Archived(version=known, path=path)
        made = self.export(found.version)
        return Archived(version=made.version, path=made.path)

    def finish(self, half: Half) -> None:
        """Bring TorchServe to a state in which the half is done, or end its trial.

        Raises:
            ServingError: It cannot be done.
        """
        deployment = self.deployment()
        deployment.restore()
        if half.archive is None and trial(deployment.state) == half.trial is not None:
            deployment.rollback()

    def take_back(self, half: Half) -> None:
        """Leave nothing of a half that was cut off before it was done.

        Raises:
            ServingError: It cannot be done.
        """
        deployment, archive = self.deployment(), half.archive
        if archive is None:
            return
        with deploying(self.folder, "restore"):
            before = deployment.state

            def without(state: State) -> State:
                versions = {name: of for name, of in state.versions.items() if name != archive}
                if half.known is not None:
                    versions[archive] = half.known
                tried = trial(state) == archive != half.trial
                return state.but(
                    versions=versions,
                    canary=None if tried else state.canary,
                    shadow=None if tried else state.shadow,
                )

            if archive in before.versions and archive != before.champion:
                state = change_state(self.folder, name=before.name, change=without)
            else:
                state = before
            deployment.versions.restore(state, drain=True)
            if archive not in state.versions:
                store.remove(torchserve.store(self.folder), f"{before.name}-{archive}.mar")


def trial(state: State) -> str | None:
    """The version that is canary or shadow."""
    return state.canary.version if state.canary else state.shadow
