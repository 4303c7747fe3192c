"""A step of a deployment: alone at work, and taken back when it fails."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from fakenews.errors import FakeNewsError, ServingError
from fakenews.holding import holding
from fakenews.serving.state import State, change_state, read_state
from fakenews.serving.store import remove
from fakenews.serving.versions import Versions

log = logging.getLogger(__name__)

LOCK = "deploy.lock"
"""In the folder of a deployment: who holds it may change that."""


class Step:
    """A step under way.

    Attributes:
        before: The state when it began.
        begun: Whether anything may be otherwise than it was.
        done: Whether it is too late to take it back.
        copied: An archive that it has put into the store.
    """

    def __init__(self, before: State) -> None:
        self.before = before
        self.begun = False
        self.done = False
        self.copied: str | None = None


def deploying(
    folder: Path, action: str, *, patience: float = 0
) -> contextlib.AbstractContextManager[None]:
    """Keep others from deploying in a folder.

    Args:
        folder: Of the deployment.
        action: What is done, for those who are kept from it.
        patience: Seconds to wait for who does so now.

    Raises:
        ServingError: Another process is at it; says which.
    """
    return holding(
        folder / LOCK,
        work="deployment",
        action=action,
        error=ServingError,
        patience=patience,
    )


class Steps:
    """The steps of one model's deployment.

    Args:
        folder: Of the deployment.
        name: Of the model.
        versions: In TorchServe.
        store: TorchServe's model store.
    """

    def __init__(self, *, folder: Path, name: str, versions: Versions, store: Path) -> None:
        self._folder = folder
        self._name = name
        self._versions = versions
        self._store = store
        self._routed: set[str] = set()  # in this step, to now or before

    @property
    def state(self) -> State:
        """What is deployed.

        Raises:
            ServingError: The state is damaged, or of another model.
        """
        found = read_state(self._folder, name=self._name)
        if found.name != self._name:
            raise ServingError(
                f"{self._folder} is the deployment of {found.name}: give serve.name="
                f"{found.name}, or another serve.dir for {self._name}"
            )
        return found

    def change(self, change: Callable[[State], State]) -> State:
        """Change the state, which the gateway reads; as `change_state`."""

        def noted(before: State) -> State:
            after = change(before)
            self._routed |= before.routed | after.routed
            return after

        return change_state(self._folder, name=self._name, change=noted)

    @contextlib.contextmanager
    def begin(
        self, action: str, version: str | None, *, complete: bool = True
    ) -> Iterator[Step]:
        """Keep others away, and take back what fails.

        Args:
            action: What is done.
            version: To whom.
            complete: TorchServe must have what the state says.

        Raises:
            ServingError: Another step is under way, TorchServe lacks something, or the step
                has failed; says what became of it.
        """
        with deploying(self._folder, action):
            before = self.state
            missing = before.workers.keys() - self._versions.registered().keys()
            if complete and missing:
                raise ServingError(
                    f"TorchServe does not have version {', '.join(sorted(missing))}, which the "
                    "state says is deployed: run action=restore first"
                )
            step = Step(before)
            self._routed = set()
            try:
                yield step
            except BaseException as error:
                if step.begun:
                    self._end(step, action, version, error)
                raise

    def _end(self, step: Step, action: str, version: str | None, error: BaseException) -> None:
        """After a failure: take back what can be, and say what became of it."""
        if step.done:
            outcome = (
                "the state is changed, but TorchServe has what it should not: run "
                "action=restore"
            )
        else:
            try:
                self._take_back(step, action, version, str(error) or type(error).__name__)
            except FakeNewsError as second:
                outcome = f"it could not be taken back ({second}): run action=restore"
            else:
                outcome = "everything is as it was before"
        if isinstance(error, ServingError):
            raise ServingError(f"{error}; {outcome}") from error
        log.warning("%s was stopped; %s", action, outcome)

    def _take_back(self, step: Step, action: str, version: str | None, why: str) -> None:
        def back(state: State) -> State:
            values = {name: getattr(step.before, name) for name in State.model_fields}
            values["events"] = state.events
            if state.aborted not in (None, step.before.aborted):
                # The gateway did that meanwhile.
                values["aborted"] = state.aborted
                canary = step.before.canary
                if canary is not None and canary.version == state.aborted.version:
                    values["canary"] = None
            return State.model_validate(values).noting("failed", version, f"{action}: {why}")

        state = self.change(back)
        log.info("taking back: %s", why)
        strays = self._versions.registered().keys() - state.workers.keys()
        self._versions.restore(state, drain=bool(strays & self._routed))
        if step.copied is not None:
            remove(self._store, step.copied)

    def tidy(self, step: Step, state: State) -> State:
        """End the versions that a state does not have, and remove their archives.

        Args:
            step: That has led to the state.
            state: What should be.

        Returns:
            The state.
        """
        if state.champion is not None:
            self._versions.set_default(state.champion)
        strays = self._versions.registered().keys() - state.workers.keys()
        self._versions.end(strays, drain=True)
        for version in step.before.versions.keys() - state.versions.keys():
            remove(self._store, step.before.versions[version].archive)
        return state
