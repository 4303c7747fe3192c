"""Which registered version answers: promoted, tried, taken back."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from fakenews.errors import RetrainingError
from fakenews.provenance import stamp
from fakenews.retraining.halves import Halves, Step
from fakenews.retraining.journal import Entry, Half
from fakenews.retraining.served import Archived, How, trial
from fakenews.retraining.standing import (
    ARCHIVE,
    FORCED,
    PROMOTED,
    ROLLED_BACK,
    Aliases,
    Gate,
    ModelVersion,
    Standing,
    challenge,
    crown,
    swap,
)
from fakenews.serving.deployment import Deployment
from fakenews.serving.state import State

log = logging.getLogger(__name__)

_Tags = Mapping[str, str | None]
_REASON = 500  # characters of a tag that people read


class Promotion:
    """Promotions of one registered model.

    Args:
        halves: Its registry, and what is deployed.
    """

    def __init__(self, halves: Halves) -> None:
        self._halves = halves
        self._serving = halves.serving

    def promote(
        self,
        version: int | None = None,
        *,
        how: How | None = None,
        gate: Gate | None = None,
        force: bool = False,
    ) -> bool:
        """Make a version the champion, and have it served.

        Args:
            version: Its number; None for the challenger.
            how: It comes to answer.
            gate: What the gate has decided about it, which is noted; None looks at its tags.
            force: Promote it whatever that is, and if it was given up; noted at the version.

        Returns:
            Whether anything has changed.

        Raises:
            RetrainingError: There is no such version, it may not answer, or somebody else
                has moved an alias or changed serving; nothing has changed.
            ServingError: It cannot be served; nothing has changed, or what has is told.
            TrackingError: The store is locked, unreachable or refuses us; nothing has changed.
        """
        with self._halves.alone("promote") as standing:
            found = _wanted(standing, version)
            if found.version == standing.aliases.champion and self._is_served(found):
                log.info("version %d is the champion already", found.version)
                return False
            forced = self._admit(standing, found, gate, force=force)
            tags = {PROMOTED: stamp(), ROLLED_BACK: None}
            half, step = None, None
            if self._serving is not None:
                archive = self._serving.archive(found, again=False)
                state = self._serving.state
                forced += _given_up(state, archive, found, force=force)
                half, step = _to_answer(state, archive, how or How())
                tags[ARCHIVE] = archive.version
            tags[FORCED] = _forced(forced)
            self._change(
                standing,
                action="promote",
                version=found.version,
                after=crown(standing.aliases, found.version),
                tags={found.version: tags},
                half=half,
                step=step,
            )
            log.info("version %d of %s is the champion", found.version, standing.model)
            return True

    def challenge(
        self,
        version: int,
        *,
        how: How | None = None,
        gate: Gate | None = None,
        force: bool = False,
    ) -> bool:
        """Make a version the challenger.

        Args:
            version: Its number.
            how: It answers `how.share` of the requests; None has it answer none.
            gate: As in `promote`.
            force: As in `promote`; the gate is only asked about what answers.

        Returns:
            Whether anything has changed.

        Raises:
            FakeNewsError: As `promote`.
        """
        with self._halves.alone("challenge") as standing:
            found = standing.find(version)
            after = challenge(standing.aliases, version)
            half: Half | None = None
            step: Step | None = None
            tags: dict[str, str | None] = {ROLLED_BACK: None}
            if how is None or self._serving is None:
                if gate is not None:
                    self._note(found, gate)
                    if (said := standing.objection(found, gate)) is not None:
                        log.warning("version %d may not answer: %s", version, said)
                elif after == standing.aliases:
                    log.info("version %d is the challenger already", version)
                    return False
            else:
                tags[FORCED] = _forced(self._admit(standing, found, gate, force=force))
                archive = self._serving.archive(found, again=False)
                half, step = _to_try(self._serving.state, archive, how)
                tags[ARCHIVE] = archive.version
            self._change(
                standing,
                action="challenge",
                version=version,
                after=after,
                tags={version: tags},
                half=half,
                step=step,
            )
            log.info("version %d of %s is the challenger", version, standing.model)
            return True

    def rollback(self, version: int | None = None) -> bool:
        """Take back the last change: end a trial, else bring back the previous version.

        Args:
            version: Take back this one, and nothing if it neither answers nor wants to: so it
                may be asked for twice. None takes back the last change.

        Returns:
            Whether anything has changed.

        Raises:
            FakeNewsError: As `promote`.
        """
        with self._halves.alone("rollback") as standing:
            meant = None if version is None else standing.find(version)
            state = None if self._serving is None else self._serving.state
            tried = None if state is None else trial(state)
            if state is not None and tried is not None:
                of_trial = _of_trial(standing, tried)
                if meant is None or meant is of_trial:
                    self._end_trial(standing, state, of_trial)
                    return True
            if meant is not None and meant.version != standing.aliases.champion:
                return self._withdraw(standing, meant)
            if tried is not None:
                raise RetrainingError(
                    f"archive {tried} is on trial: take that back first, by action=rollback "
                    "without a version"
                )
            return self._go_back(standing, state)

    def _is_served(self, found: ModelVersion) -> bool:
        if self._serving is None:
            return True
        return found.archive is not None and self._serving.state.champion == found.archive

    def _note(self, found: ModelVersion, gate: Gate) -> None:
        """Note a verdict of the gate at the version that it is about."""
        if None not in (gate.run, found.run) and gate.run != found.run:
            raise RetrainingError(
                f"the gate has judged run {gate.run}, and version {found.version} is of run "
                f"{found.run}: give its own verdict"
            )
        self._halves.registry.note_gate(found.version, gate)

    def _admit(
        self, standing: Standing, found: ModelVersion, gate: Gate | None, *, force: bool
    ) -> list[str]:
        """Let a version answer; why not, if it is forced.

        Raises:
            RetrainingError: The gate has not accepted it in place of the champion.
        """
        if gate is not None:
            self._note(found, gate)
        said = standing.objection(found, gate or found.gate)
        if said is None:
            return []
        if not force:
            raise RetrainingError(
                f"version {found.version} may not answer: {said}; give gate=FILE with a "
                "verdict of the gate, or force=true"
            )
        log.warning("version %d is forced, though %s", found.version, said)
        return [said]

    def _end_trial(
        self, standing: Standing, state: State, of_trial: ModelVersion | None
    ) -> None:
        after = standing.aliases
        version = None if of_trial is None else of_trial.version
        if version is not None and version == after.challenger:
            after = replace(after, challenger=None)
        half = _half(state, None, "canary")
        self._change(
            standing,
            action="rollback",
            version=version,
            after=after,
            tags={} if version is None else {version: {ROLLED_BACK: stamp()}},
            half=half,
            step=Deployment.rollback,
        )

    def _withdraw(self, standing: Standing, found: ModelVersion) -> bool:
        """Take back a version that only wants to answer."""
        if found.version != standing.aliases.challenger:
            log.info(
                "version %d is neither champion nor challenger: there is nothing to take back",
                found.version,
            )
            return False
        self._change(
            standing,
            action="rollback",
            version=found.version,
            after=replace(standing.aliases, challenger=None),
            tags={found.version: {ROLLED_BACK: stamp()}},
        )
        log.info("version %d is no longer the challenger", found.version)
        return True

    def _go_back(self, standing: Standing, state: State | None) -> bool:
        """Bring back the previous version."""
        champion, previous = standing.held("champion"), standing.held("previous")
        if champion is None or previous is None:
            raise RetrainingError("there is no previous version to go back to")
        if ROLLED_BACK in previous.tags:
            log.info(
                "version %d was taken back already, and %d is the champion",
                *(previous.version, champion.version),
            )
            return False
        tags: dict[int, _Tags] = {champion.version: {ROLLED_BACK: stamp()}}
        half, step = None, None
        if self._serving is not None and state is not None:
            archive = self._serving.archive(previous, again=True)
            half, step = _to_answer(state, archive, How())
            if step is not None and state.previous == archive.version:
                step = Deployment.rollback
            tags[previous.version] = {ARCHIVE: archive.version}
        self._change(
            standing,
            action="rollback",
            version=champion.version,
            after=swap(standing.aliases),
            tags=tags,
            half=half,
            step=step,
        )
        log.info("version %d of %s is the champion again", previous.version, standing.model)
        return True

    def _change(
        self,
        standing: Standing,
        *,
        action: Literal["promote", "rollback", "challenge"],
        version: int | None,
        after: Aliases,
        tags: Mapping[int, _Tags],
        half: Half | None = None,
        step: Step | None = None,
    ) -> None:
        entry = Entry(
            action=action,
            model=standing.model,
            version=version,
            before=standing.aliases,
            after=after,
            tags={
                of: {name: (standing.find(of).tags.get(name), value) for name, value in new}
                for of, new in ((of, named.items()) for of, named in tags.items())
            },
            serving=half,
            time=stamp(),
        )
        self._halves.change(entry, step)


def _wanted(standing: Standing, version: int | None) -> ModelVersion:
    if version is not None:
        return standing.find(version)
    found = standing.held("challenger")
    if found is None:
        raise RetrainingError(
            f"{standing.model} has no challenger: give version=N, or propose one with "
            "action=challenge"
        )
    return found


def _of_trial(standing: Standing, archive: str) -> ModelVersion | None:
    """The version that is on trial; the challenger, if several have that archive."""
    found = [of for of in standing.versions.values() if of.archive == archive]
    found.sort(key=lambda of: (of.version == standing.aliases.challenger, of.version))
    return found[-1] if found else None


def _half(state: State, archive: str | None, role: Literal["champion", "canary"]) -> Half:
    return Half(
        archive=archive,
        role=role,
        champion=state.champion,
        trial=trial(state),
        known=state.versions.get(archive or ""),
    )


def _to_answer(state: State, archive: Archived, how: How) -> tuple[Half | None, Step | None]:
    """What makes an archive the one that answers; nothing if it is."""
    if state.champion == archive.version:
        return None, None
    half = _half(state, archive.version, "champion")
    if state.canary is not None and state.canary.version == archive.version:
        return half, lambda found: found.promote(keep_previous=how.keep_previous)
    return half, lambda found: found.deploy(
        archive.path,
        workers=how.workers,
        shadow_seconds=how.shadow_seconds,
        canary_seconds=how.canary_seconds,
        share=how.share,
        keep_previous=how.keep_previous,
    )


def _to_try(state: State, archive: Archived, how: How) -> tuple[Half, Step]:
    """What lets an archive answer some of the requests."""
    half = _half(state, archive.version, "canary")
    return half, lambda found: found.canary(archive.path, share=how.share, workers=how.workers)


def _given_up(
    state: State, archive: Archived, found: ModelVersion, *, force: bool
) -> list[str]:
    """That the gateway gave the archive up, if it did.

    Raises:
        RetrainingError: It did, and the version is not forced.
    """
    given_up = state.aborted
    if given_up is None or given_up.version != archive.version:
        return []
    said = f"the gateway gave up its trial: {given_up.reason}"
    if not force:
        raise RetrainingError(
            f"version {found.version} may not answer: {said}; try it again with "
            "action=challenge trial=true, or give force=true"
        )
    log.warning("version %d is forced, though %s", found.version, said)
    return [said]


def _forced(forced: list[str]) -> str | None:
    """The value of the tag of a version that is forced."""
    return f"{stamp()}, though {' and '.join(forced)}"[:_REASON] if forced else None
