"""Steps of a deployment: each is done as a whole, or not at all.

A new version is loaded beside the old one and repeats its golden predictions before anybody
is answered by it. It becomes TorchServe's default, and the champion of the state, by which
the gateway routes; only when nobody waits for the old one any more, that is unregistered.
Until the state has its new champion, whatever fails is taken back.
"""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fakenews.errors import ServingError
from fakenews.serving import torchserve
from fakenews.serving.management import Management
from fakenews.serving.smoke import Smoke, read_golden, smoke_test
from fakenews.serving.state import Canary, State, Version, now
from fakenews.serving.steps import Step, Steps, deploying
from fakenews.serving.store import Archive, put, read_archive
from fakenews.serving.versions import Timing, Versions

log = logging.getLogger(__name__)


class Deployment:
    """The deployment of one model in a folder.

    Args:
        folder: Of the deployment.
        name: Of the model.
        client: Of TorchServe.
        timing: How long things take.
        confirm: Called when a step has changed who answers whom, before the old version ends;
            what it raises takes the step back.
    """

    def __init__(
        self,
        *,
        folder: Path,
        name: str,
        client: Management,
        timing: Timing,
        confirm: Callable[[], None] | None = None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._client = client
        self._poll = timing.poll
        self._confirm = confirm or (lambda: None)
        self._store = torchserve.store(folder)
        self.versions = Versions(
            name=name,
            client=client,
            timing=timing,
            store=self._store,
            log_file=torchserve.home(folder) / "logs" / "model_log.log",
        )
        self._steps = Steps(folder=folder, name=name, versions=self.versions, store=self._store)

    @property
    def state(self) -> State:
        """What is deployed.

        Raises:
            ServingError: The state is damaged, or of another model.
        """
        return self._steps.state

    def deploy(
        self,
        path: Path,
        *,
        workers: int | None = None,
        shadow_seconds: float = 0,
        canary_seconds: float = 0,
        share: float = 0.1,
        keep_previous: bool = False,
    ) -> State:
        """Replace the champion by the version of an archive.

        Args:
            path: Of the archive.
            workers: Of the version; None for as many as its archive says.
            shadow_seconds: For which it gets copies of requests first.
            canary_seconds: For which it then answers a share of the requests.
            share: That share.
            keep_previous: Leave the old version registered, for a rollback without loading.

        Raises:
            ServingError: It cannot be done, and nothing has changed; or the version is the
                champion, and the old one could not be unregistered.
        """
        archive = read_archive(path, name=self._name)
        read_golden(archive)
        version = archive.version
        with self._steps.begin("deploy", version) as step:
            self._refuse_other_trial(step.before, version)
            again = step.before.champion == version
            if again and workers is None:
                workers = step.before.versions[version].workers
            self._add(step, archive, workers)
            if again:
                log.info("version %s is the champion already", version)
                self._confirm()
                return self._steps.tidy(step, self.state)
            if shadow_seconds:
                self._try("shadow", version, shadow_seconds, shadow=version)
                self._steps.change(lambda state: state.but(shadow=None))
            if canary_seconds:
                canary = Canary(version=version, share=share)
                self._try("canary", version, canary_seconds, canary=canary)
            return self._crown(step, version, "deploy", keep_previous=keep_previous)

    def canary(self, path: Path | None, *, share: float, workers: int | None = None) -> State:
        """Let a version answer a share of the requests, until it is promoted or rolled back.

        Args:
            path: Of the archive; None changes the share of the canary there is.
            share: Of the requests.
            workers: As in `deploy`.

        Raises:
            ServingError: It cannot be done, and nothing has changed.
        """
        state = self.state
        if path is None:
            if state.canary is None:
                raise ServingError("there is no canary: give archive=FILE")
            path = self._archived(state, state.canary.version)
        archive = read_archive(path, name=self._name)
        read_golden(archive)
        version = archive.version
        with self._steps.begin("canary", version) as step:
            self._refuse_other_trial(step.before, version)
            if step.before.champion is None:
                raise ServingError("nothing is deployed to compare a canary with: deploy it")
            if step.before.champion == version:
                raise ServingError(
                    f"version {version} is the champion: there is nothing to try"
                )
            self._add(step, archive, workers)
            canary = Canary(version=version, share=share)
            state = self._steps.change(
                lambda state: state.but(canary=canary, shadow=None).noting(
                    "canary", version, f"share {share:g}"
                )
            )
            self._confirm()
            log.info("version %s answers %g%% of the requests", version, 100 * share)
            return state

    def promote(self, *, keep_previous: bool = False) -> State:
        """Make the canary the champion; as `deploy`."""
        canary = self.state.canary
        version = canary.version if canary else None
        with self._steps.begin("promote", version) as step:
            if version is None:
                last = step.before.events[-1] if step.before.events else None
                if last is not None and last.action == "promote":
                    log.info("version %s was promoted already", last.version)
                    return self._steps.tidy(step, step.before)
                raise ServingError(
                    "there is no canary to promote: start one with action=canary"
                )
            self._smoke(self._archived(step.before, version))
            return self._crown(step, version, "promote", keep_previous=keep_previous)

    def rollback(self) -> State:
        """Take back the last change: end a trial, else bring back the previous version.

        Raises:
            ServingError: There is nothing to go back to, or it cannot be done, and nothing
                has changed.
        """
        with self._steps.begin("rollback", None) as step:
            before = step.before
            trial = _trial(before)
            if trial is not None:
                self._confirm()
                step.begun = step.done = True
                log.info("version %s is no longer on trial", trial)
                return self._steps.tidy(step, self._drop(trial, "rollback"))
            version = before.previous
            if version is None:
                last = before.events[-1] if before.events else None
                if last is not None and last.action == "rollback":
                    log.info("that was taken back already: %s", last.detail)
                    return self._steps.tidy(step, before)
                raise ServingError("there is no previous version to go back to")
            archive = read_archive(self._archived(before, version), name=self._name)
            current = before.versions.get(before.champion or "")
            self._add(step, archive, current.workers if current else None)
            return self._crown(step, version, "rollback", keep_previous=False)

    def scale(self, workers: int, version: str | None = None) -> State:
        """Give a version a number of workers.

        Args:
            workers: At least one.
            version: Of the model; None for the champion.

        Raises:
            ServingError: It cannot be done, and nothing has changed.
        """
        with self._steps.begin("scale", version) as step:
            version = self._served(step.before, version)
            step.begun = True
            self.versions.start(version, step.before.versions[version].archive, workers)
            return self._steps.change(
                lambda state: _with_workers(state, version, workers).noting(
                    "scale", version, f"{workers} workers"
                )
            )

    def undeploy(self, version: str | None = None) -> State:
        """End a version, or all.

        Args:
            version: On trial, or the previous one; None for all there are.

        Raises:
            ServingError: It answers requests, or is not there.
        """
        with self._steps.begin("undeploy", version, complete=False) as step:
            before = step.before
            if version is None:
                step.begun = step.done = True
                state = self._steps.change(
                    lambda state: State(
                        name=state.name, aborted=state.aborted, events=state.events
                    ).noting("undeploy", None, "all versions")
                )
                return self._steps.tidy(step, state)
            if version == before.champion:
                raise ServingError(
                    f"version {version} is the champion: deploy another, roll back, or "
                    "undeploy all by giving no version"
                )
            if version not in before.versions:
                raise ServingError(
                    f"version {version} is not deployed: there are {_list(before.versions)}"
                )
            step.begun = step.done = True
            return self._steps.tidy(step, self._drop(version, "undeploy"))

    def smoke(self, version: str | None = None) -> Smoke:
        """Compare what a version answers with its golden predictions.

        Args:
            version: Of the model; None for the champion.

        Raises:
            ServingError: It answers something else, or not.
        """
        state = self.state
        return self._smoke(self._archived(state, self._served(state, version)))

    def restore(self, *, patience: float = 0) -> State:
        """Bring TorchServe to what the state says, as after its restart.

        Args:
            patience: Seconds to wait for a step that is under way.

        Raises:
            ServingError: It cannot be done.
        """
        with deploying(self._folder, "restore", patience=patience):
            state = self.state
            self.versions.restore(state, drain=True)
            log.info("TorchServe has %s", _list(state.workers))
            return state

    def _add(self, step: Step, archive: Archive, workers: int | None) -> None:
        """Load a version beside the others, and see that it repeats its predictions."""
        version = archive.version
        step.begun = True
        if put(archive, self._store):
            step.copied = archive.file
        count = self.versions.start(version, archive.file, workers)
        self._smoke(self._store / archive.file)
        known = step.before.versions.get(version)
        entry = Version(
            archive=archive.file, workers=count, added=known.added if known else now()
        )

        def added(state: State) -> State:
            # It is judged anew.
            old = state.aborted is not None and state.aborted.version == version
            versions = {**state.versions, version: entry}
            return state.but(versions=versions, aborted=None if old else state.aborted)

        self._steps.change(added)

    def _smoke(self, path: Path) -> Smoke:
        archive = read_archive(path, name=self._name)
        passed = smoke_test(self._client, archive)
        log.info(
            "version %s repeats its %d golden predictions (largest difference %.1g of %g)",
            archive.version,
            passed.items,
            passed.difference,
            passed.atol,
        )
        return passed

    def _try(self, role: str, version: str, seconds: float, **values: object) -> None:
        """Have the gateway try a version for a time."""
        self._steps.change(
            lambda state: state.but(**values).noting(role, version, f"{seconds:g} s")
        )
        log.info("version %s is the %s for %g s", version, role, seconds)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._poll))
            _refuse_aborted(self.state, version)

    def _crown(self, step: Step, version: str, action: str, *, keep_previous: bool) -> State:
        """Make a version the champion, and end the one before it."""
        old = step.before.champion
        step.begun = True
        self.versions.set_default(version)
        kept = None if action == "rollback" else old

        def crowned(state: State) -> State:
            _refuse_aborted(state, version)
            versions = {name: state.versions[name] for name in (version, kept) if name}
            if kept is not None and not keep_previous:
                versions[kept] = versions[kept].model_copy(update={"workers": 0})
            after = state.but(
                versions=versions, champion=version, previous=kept, canary=None, shadow=None
            )
            return after.noting(action, version, f"in place of {old}" if old else "the first")

        state = self._steps.change(crowned)
        self._confirm()
        step.done = True
        log.info("version %s is the champion%s", version, f", in place of {old}" if old else "")
        return self._steps.tidy(step, state)

    def _drop(self, version: str, action: str) -> State:
        """Take a version other than the champion out of the state."""

        def dropped(state: State) -> State:
            on_trial = _trial(state) == version
            after = state.but(
                versions={
                    name: kept for name, kept in state.versions.items() if name != version
                },
                canary=None if on_trial else state.canary,
                shadow=None if on_trial else state.shadow,
                previous=None if state.previous == version else state.previous,
            )
            return after.noting(action, version, f"{', '.join(state.roles(version)) or 'idle'}")

        return self._steps.change(dropped)

    def _archived(self, state: State, version: str) -> Path:
        return self._store / state.versions[version].archive

    def _served(self, state: State, version: str | None) -> str:
        """The version that is meant, which TorchServe should have."""
        version = version or state.champion
        if version is None:
            raise ServingError("nothing is deployed: deploy an archive first")
        if version not in state.workers:
            raise ServingError(
                f"version {version} is not registered: there are {_list(state.workers)}"
            )
        return version

    def _refuse_other_trial(self, state: State, version: str) -> None:
        trial = _trial(state)
        if trial not in (None, version):
            raise ServingError(
                f"version {trial} is on trial: end that with action=promote or rollback first"
            )


def _trial(state: State) -> str | None:
    """The version that is canary or shadow."""
    return state.canary.version if state.canary else state.shadow


def _refuse_aborted(state: State, version: str) -> None:
    aborted = state.aborted
    if aborted is not None and aborted.version == version:
        raise ServingError(f"the gateway gave up the canary {version}: {aborted.reason}")


def _with_workers(state: State, version: str, workers: int) -> State:
    entry = state.versions[version].model_copy(update={"workers": workers})
    return state.but(versions={**state.versions, version: entry})


def _list(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions)) or "none"
