"""Registry and serving change together, or neither does.

Serving changes first, as a step that asks before it is done (`Deployment`, `confirm`): then
tags and aliases are set, and if they cannot be, the step is taken back. A trial is ended the
other way round: that writes a file, and nothing can come of it but that it is done.

The journal is written before and removed after. What was killed in between is finished if
serving has changed, and taken back otherwise.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fakenews.errors import FakeNewsError, RetrainingError, interruption
from fakenews.retraining.journal import Entry, Half, Journal
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import Serving, trial
from fakenews.retraining.standing import Standing
from fakenews.serving.deployment import Deployment
from fakenews.serving.state import State

log = logging.getLogger(__name__)

Step = Callable[[Deployment], object]
"""What is done to a deployment."""


class Halves:
    """The two halves, and the journal between them.

    Args:
        registry: Of the model.
        serving: What is deployed; None if that is no affair of ours.
        journal: Of what is under way.
    """

    def __init__(
        self, *, registry: Registry, serving: Serving | None, journal: Journal
    ) -> None:
        self.registry = registry
        self.serving = serving
        self._journal = journal

    @contextmanager
    def alone(self, action: str) -> Iterator[Standing]:
        """Alone at work, with nothing left of a killed process; gives who is what.

        Args:
            action: What is done, for those who are kept from it.

        Raises:
            FakeNewsError: Another process is at work, or as `recover`.
        """
        with self._journal.held(action):
            self.recover()
            yield self.registry.status()

    def change(self, entry: Entry, step: Step | None) -> None:
        """Change both halves, or neither.

        Args:
            entry: What changes.
            step: Changes serving; None where it stays as it is.

        Raises:
            FakeNewsError: It cannot be done, and neither has changed; or the journal says
                what was begun, and the log that it does.
        """
        asked = False

        def confirm() -> None:
            nonlocal asked
            if entry.serving is not None:
                self._refuse_other(entry.serving)
            asked = True
            self._to_registry(entry)

        self._journal.write(entry)
        try:
            if step is None or self.serving is None:
                confirm()
            else:
                step(self.serving.deployment(confirm=confirm))
                _refuse_nothing(asked=asked)
        except BaseException as error:
            # Refused moves have changed no alias; of others we cannot know.
            touched = asked and not isinstance(error, RetrainingError)
            stopped = interruption(error) is not None
            if self._is_settled(entry, touched=touched, stopped=stopped):
                self._journal.clear()
            else:
                log.warning(
                    "registry and serving may differ: the next command, but for "
                    "action=status, finishes this or takes it back"
                )
            raise
        self._journal.clear()

    def recover(self) -> None:
        """Finish, or take back, what a killed process has begun.

        Raises:
            RetrainingError: It is of another model; or aliases were moved since, and the
                journal is removed.
            ServingError: TorchServe cannot be brought to it.
            TrackingError: The store is locked, unreachable or refuses us.
        """
        entry = self._journal.read()
        if entry is None:
            return
        half = entry.serving
        if entry.model != self.registry.model or (half and not self.serving):
            lacking = f"name={entry.model}" + (" and serving=torchserve" if half else "")
            raise RetrainingError(
                f"action={entry.action} of {entry.model} was cut off, as {self._journal.path} "
                f"says: have it finished first, by any action but status with {lacking}"
            )
        forward = self._is_to_be_finished(entry)
        try:
            if forward:
                self._to_registry(entry)
            else:
                self.registry.move(entry.after, entry.before)
                self._tag(entry, back=True)
        except RetrainingError as error:
            self._journal.clear()
            raise RetrainingError(
                f"action={entry.action} was cut off, and cannot be ended: {error}"
            ) from error
        if half is not None and self.serving is not None:
            (self.serving.finish if forward else self.serving.take_back)(half)
        self._journal.clear()
        log.warning(
            "action=%s of version %s was cut off after %s: it is %s now",
            *(entry.action, entry.version, entry.time),
            "finished" if forward else "taken back",
        )

    def _is_to_be_finished(self, entry: Entry) -> bool:
        if entry.serving is None or self.serving is None:
            return self.registry.aliases() != entry.before
        # The end of a trial begins in the registry.
        return entry.serving.archive is None or is_done(entry.serving, self.serving.state)

    def _to_registry(self, entry: Entry) -> None:
        try:
            self._tag(entry, back=False)
            self.registry.move(entry.before, entry.after)
        except BaseException:
            self._tag(entry, back=True)
            raise

    def _tag(self, entry: Entry, *, back: bool) -> None:
        for version, tags in entry.tags.items():
            self.registry.tag(
                version, {name: pair[0 if back else 1] for name, pair in tags.items()}
            )

    def _refuse_other(self, half: Half) -> None:
        """Refuse to go on where somebody else has changed serving."""
        state = self._state()
        as_wanted = trial(state) == half.trial if half.archive is None else is_done(half, state)
        if not as_wanted:
            raise RetrainingError(
                f"serving was changed by somebody else meanwhile (champion {state.champion}, "
                f"on trial {trial(state)}): look at action=status, and ask again"
            )

    def _is_settled(self, entry: Entry, *, touched: bool, stopped: bool) -> bool:
        """Whether both halves are as before, or both as they are to be.

        What was stopped then has not tidied up: it is not settled.
        """
        try:
            back = forth = True
            if entry.serving is not None:
                state = self._state()
                back, forth = is_as_before(entry.serving, state), is_done(entry.serving, state)
            if not touched:
                return back
            found = self.registry.status()
        except FakeNewsError:
            return False
        tags = [
            (found.find(version).tags.get(name), *pair)
            for version, named in entry.tags.items()
            for name, pair in named.items()
        ]
        back = back and found.aliases == entry.before
        forth = forth and found.aliases == entry.after and not stopped
        return (back and all(value == old for value, old, _ in tags)) or (
            forth and all(value == new for value, _, new in tags)
        )

    def _state(self) -> State:
        assert self.serving is not None  # noqa: S101 there is a half of it
        return self.serving.state


def is_done(half: Half, state: State) -> bool:
    """Whether serving is as it is to be."""
    return half.archive == (state.champion if half.role == "champion" else trial(state))


def is_as_before(half: Half, state: State) -> bool:
    """Whether serving answers as it did before."""
    return (state.champion, trial(state)) == (half.champion, half.trial)


def _refuse_nothing(*, asked: bool) -> None:
    if not asked:
        raise RetrainingError(
            "serving was changed by somebody else meanwhile, and there was nothing to do: "
            "look at action=status, and ask again"
        )
