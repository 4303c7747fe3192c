"""MLflow's registered versions of one model: what is known of them, and moves of aliases.

MLflow sets one alias at a time and compares nothing: so they are compared here just before,
and read again after.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from fakenews.errors import RetrainingError
from fakenews.retraining.standing import (
    DATA_HASH,
    DATA_VERSION,
    GATE,
    GATE_AGAINST,
    GATE_SUMMARY,
    Alias,
    Aliases,
    Gate,
    ModelVersion,
    Standing,
    challenge,
    crown,
    swap,
)
from fakenews.tracking.artifacts import check_existing
from fakenews.tracking.store import explain, impatient, public, refusals

# Champion after previous: whoever asks for it meanwhile gets the one that still answers.
_ORDER: tuple[Alias, ...] = ("previous", "champion", "challenger")
_SUMMARY = 500  # characters of a tag that people read
_SHOWN = 10  # names of models in a message


class Registry:
    """The registered versions of one model.

    Args:
        uri: Of MLflow's store.
        model: Name of the registered model.
        timeout: Seconds in which the store must answer.
    """

    def __init__(self, *, uri: str, model: str, timeout: float = 10) -> None:
        self.model = model
        self._uri = uri
        self._timeout = timeout
        self._made: Any = None

    def status(self) -> Standing:
        """Who is what now.

        Raises:
            RetrainingError: There is no such model.
            TrackingError: The store is locked, unreachable or refuses us.
        """
        with self._asking() as client:
            aliases = self._aliases(client)
            versions: dict[int, ModelVersion] = {}
            token: str | None = None
            while True:
                page = client.search_model_versions(
                    f"name='{self.model}'", max_results=1000, page_token=token
                )
                versions |= {int(found.version): _version(found) for found in page}
                if not (token := page.token):
                    break
        return Standing(model=self.model, aliases=aliases, versions=versions)

    def aliases(self) -> Aliases:
        """Which version each alias names now; as `status`."""
        with self._asking() as client:
            return self._aliases(client)

    def tag(self, version: int, tags: Mapping[str, str | None]) -> None:
        """Say what is known of a version.

        Args:
            version: Its number.
            tags: By name; None takes one away.

        Raises:
            RetrainingError: There is no such version.
            TrackingError: The store is locked, unreachable or refuses us.
        """
        with self._asking(f"version={version}: {self.model} has no such version") as client:
            known = client.get_model_version(self.model, str(version)).tags
            for name, value in tags.items():
                if value is not None:
                    client.set_model_version_tag(self.model, str(version), name, value)
                elif name in known:
                    client.delete_model_version_tag(self.model, str(version), name)

    def note_gate(self, version: int, gate: Gate) -> None:
        """Say what the gate has decided about a version; as `tag`."""
        decided = "accepted" if gate.accepted else "refused"
        summary = " ".join(gate.summary.split())[:_SUMMARY] or None
        tags = {GATE: decided, GATE_SUMMARY: summary, GATE_AGAINST: gate.against}
        self.tag(version, tags)

    def note_data(self, version: int, *, digest: str, dataset: str | None) -> None:
        """Say what a version was trained on; as `tag`.

        Args:
            version: Its number.
            digest: SHA-256 of what it was trained on.
            dataset: Version of the retraining dataset; None if it was of none.
        """
        self.tag(version, {DATA_HASH: digest, DATA_VERSION: dataset})

    def propose(self, version: int, *, expected: Aliases | None = None) -> Aliases:
        """Make a version the challenger.

        Args:
            version: Its number.
            expected: Who is what, as far as we know; None looks.

        Returns:
            Who is what then.

        Raises:
            RetrainingError: There is no such version, or it is the champion; or as `move`.
            TrackingError: As `move`.
        """
        before = self._before(expected, version)
        return self.move(before, challenge(before, version))

    def promote(self, version: int, *, expected: Aliases | None = None) -> Aliases:
        """Make a version the champion, and that one the previous one; as `propose`."""
        before = self._before(expected, version)
        return self.move(before, crown(before, version))

    def roll_back(self, *, expected: Aliases | None = None) -> Aliases:
        """Make the previous version the champion, and that one the previous one.

        Raises:
            RetrainingError: There is no previous version; or as `move`.
            TrackingError: As `move`.
        """
        before = expected or self.aliases()
        return self.move(before, swap(before))

    def _before(self, expected: Aliases | None, version: int) -> Aliases:
        standing = self.status()
        standing.find(version)
        return expected or standing.aliases

    def move(self, expected: Aliases, wanted: Aliases) -> Aliases:
        """Move the aliases: all of them, or none as far as the store lets us.

        Args:
            expected: Who is what, as far as we know.
            wanted: Who should be. What is so already, as after a process was killed on this
                way, is no contradiction.

        Returns:
            `wanted`.

        Raises:
            RetrainingError: Somebody else has moved an alias meanwhile, or there is no such
                version; what was moved is moved back.
            TrackingError: The store is locked, unreachable or refuses us; likewise, as far as
                it lets us.
        """
        with self._asking() as client:
            found = self._aliases(client)
            self._refuse_moved(found, expected, wanted)
            done: list[Alias] = []
            try:
                for alias in _ORDER:
                    holder = getattr(wanted, alias)
                    if getattr(found, alias) != holder:
                        done.append(alias)
                        self._set(client, alias, holder)
                self._refuse_moved(self._aliases(client), wanted, wanted)
            except BaseException:
                self._move_back(client, done, found, wanted)
                raise
        return wanted

    def _refuse_moved(self, found: Aliases, expected: Aliases, wanted: Aliases) -> None:
        if not found.between(expected, wanted):
            raise RetrainingError(
                f"the aliases of {self.model} were moved by somebody else meanwhile: they are "
                f"{found}, not {expected}; look at action=status, and ask again"
            )

    def _move_back(
        self, client: Any, done: list[Alias], before: Aliases, wanted: Aliases
    ) -> None:
        """Take back what we have set, and nobody has since."""
        now = self._aliases(client)
        for alias in reversed(done):
            if getattr(now, alias) == getattr(wanted, alias):
                self._set(client, alias, getattr(before, alias))

    def _set(self, client: Any, alias: Alias, holder: int | None) -> None:
        if holder is None:
            client.delete_registered_model_alias(self.model, alias)
        else:
            client.set_registered_model_alias(self.model, alias, str(holder))

    def _aliases(self, client: Any) -> Aliases:
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_registered_model(self.model).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            names = sorted(found.name for found in client.search_registered_models())
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise RetrainingError(
                f"name={self.model} is not registered in {public(self._uri)}: there are "
                f"{', '.join(names[:_SHOWN]) or 'none'}{more}"
            ) from error
        return Aliases(**{alias: int(found[alias]) for alias in _ORDER if alias in found})

    @contextmanager
    def _asking(self, absent: str | None = None) -> Iterator[Any]:
        """A client, whose errors are ours.

        Args:
            absent: What it means when there is no such thing.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        if self._made is None:
            check_existing(self._uri, self._timeout)
            self._made = MlflowClient(self._uri)
        with refusals(self._uri), impatient(self._timeout):
            try:
                yield self._made
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise RetrainingError(absent or explain(self._uri, error)) from error
                raise


def _version(found: Any) -> ModelVersion:
    return ModelVersion(
        version=int(found.version),
        run=found.run_id or None,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        description=found.description or "",
        tags=dict(found.tags),
    )
