"""A client of TorchServe: its management API, and predictions.

TorchServe asks for a key on every request. A refused key is answered with 400 before
anything is done, so such a request is sent again with a new one.
"""

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any, Self

import httpx

from fakenews.errors import ServingError
from fakenews.serving.keys import (
    NO_CERTIFICATES,
    Keys,
    Kind,
    Refused,
    Unreachable,
    unreachable,
)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that answers for a version.

    Attributes:
        name: Among TorchServe's workers.
        pid: -1 before it has started.
        ready: Whether it has loaded the model.
    """

    name: str
    pid: int
    ready: bool


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version that TorchServe has.

    Attributes:
        version: Of the model.
        archive: In the model store.
        wanted: Workers it should have.
        workers: Those it has.
        waiting: Requests in its queue.
        startup_timeout: Seconds for a worker to load it.
    """

    version: str
    archive: str
    wanted: int
    workers: tuple[Worker, ...]
    waiting: int
    startup_timeout: int

    @property
    def ready(self) -> int:
        """Workers that can answer."""
        return sum(worker.ready for worker in self.workers)


class Management:
    """TorchServe's APIs, called one after another.

    Connections that fail are tried again, and so are answers of 500 and above, where doing
    it twice is as good as once.

    Args:
        management: URL of the management API.
        inference: URL of the inference API.
        keys: To both.
        timeout: Seconds for an answer.
        retries: After the first attempt.
        pause: Seconds before the first of them; doubles.
    """

    def __init__(
        self,
        *,
        management: str,
        inference: str,
        keys: Keys,
        timeout: float = 60,
        retries: int = 3,
        pause: float = 0.2,
    ) -> None:
        self._addresses: dict[Kind, str] = {"management": management, "inference": inference}
        self._keys = keys
        self._retries = retries
        self._pause = pause
        # It would tell of each look at TorchServe.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=5),
            trust_env=False,  # it is not behind a proxy
            verify=NO_CERTIFICATES,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether TorchServe is there and takes our keys."""
        try:
            self._once("inference", "GET", "/ping")
        except ServingError:
            return False
        return True

    def health(self) -> str:
        """What it says of itself: Healthy, Partial Healthy or Unhealthy.

        Counts the workers of default versions alone.
        """
        return str(self._json("inference", "GET", "/ping")["status"])

    def models(self) -> dict[str, str]:
        """The archive of each model's default version, by the model's name."""
        found: dict[str, str] = {}
        after: str | None = "0"
        while after is not None:
            page = self._json("management", "GET", f"/models?limit=100&next_page_token={after}")
            found.update({model["modelName"]: model["modelUrl"] for model in page["models"]})
            after = page.get("nextPageToken")
        return found

    def versions(self, name: str) -> dict[str, Registered]:
        """The versions of a model; none if it has no such model."""
        try:
            found = self._json("management", "GET", f"/models/{name}/all")
        except Refused as error:
            if error.status == 404:
                return {}
            raise
        return {item["modelVersion"]: _registered(item) for item in found}

    def describe(self, name: str, version: str) -> Registered | None:
        """One version; None if it is not registered."""
        try:
            (item,) = self._json("management", "GET", f"/models/{name}/{version}")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return _registered(item)

    def default(self, name: str) -> str | None:
        """The version that answers for a model when none is named."""
        try:
            (item,) = self._json("management", "GET", f"/models/{name}")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return str(item["modelVersion"])

    def register(self, name: str, archive: str) -> None:
        """Have a version loaded, without waiting for it.

        It gets as many workers as its archive says; the first version of a model becomes
        its default.

        Args:
            name: Of the model.
            archive: Name of an archive in the model store, or of a folder that was one:
                that takes no time. With a path, it would be deleted when the version is
                unregistered.
        """
        assert "/" not in archive  # noqa: S101 see above
        parameters = httpx.QueryParams(
            url=archive, model_name=name, initial_workers=1, synchronous="false"
        )
        self._ask("management", "POST", f"/models?{parameters}", again=False)

    def scale(self, name: str, version: str, workers: int) -> None:
        """Give a version a number of workers, without waiting for them."""
        query = f"min_worker={workers}&max_worker={workers}&synchronous=false"
        self._ask("management", "PUT", f"/models/{name}/{version}?{query}")

    def set_default(self, name: str, version: str) -> None:
        """Let a version answer where none is named."""
        self._ask("management", "PUT", f"/models/{name}/{version}/set-default")

    def unregister(self, name: str, version: str) -> None:
        """Have a version forgotten; requests that it has are dropped.

        The default version can only go when it is the last.
        """
        try:
            self._ask("management", "DELETE", f"/models/{name}/{version}")
        except Refused as error:
            # Whether it was never there, or the answer to the first attempt was lost.
            if error.status != 404:
                raise

    def predict(self, name: str, version: str, body: Any) -> Any:
        """What a version answers to a JSON body.

        Raises:
            Refused: With any status but 200.
        """
        return self._json("inference", "POST", f"/predictions/{name}/{version}", body)

    def _json(self, kind: Kind, method: str, path: str, body: Any = None) -> Any:
        response = self._ask(kind, method, path, body)
        try:
            return response.json()
        except ValueError as error:
            raise ServingError(
                f"{self._addresses[kind]} answers {method} {path} with no JSON: it is no "
                "TorchServe"
            ) from error

    def _ask(
        self, kind: Kind, method: str, path: str, body: Any = None, *, again: bool = True
    ) -> httpx.Response:
        pause = self._pause
        for left in range(self._retries, -1, -1):
            try:
                return self._once(kind, method, path, body)
            except ServingError as error:
                sent = not isinstance(error.__cause__, httpx.ConnectError)
                passing = isinstance(error, Unreachable) or (
                    isinstance(error, Refused) and error.status >= 500
                )
                if not left or not passing or (sent and not again):
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError  # the last attempt returns or raises

    def _once(self, kind: Kind, method: str, path: str, body: Any = None) -> httpx.Response:
        """One attempt, or two when the first key is refused."""
        address = self._addresses[kind]
        for attempt in ("first", "last"):
            key = self._keys.key(kind)
            try:
                response = self._client.request(
                    method,
                    address + path,
                    json=body,
                    headers={"authorization": f"Bearer {key}"},
                )
            except httpx.HTTPError as error:
                raise Unreachable(unreachable(address, error)) from error
            if response.status_code != 400 or "InvalidKey" not in response.text:
                break
            if attempt == "first":
                self._keys.refresh(kind, refused=key)
        if not response.is_success:
            raise Refused(
                f"{address} answers {response.status_code} to {method} "
                f"{path.partition('?')[0]}: {_reason(response)}",
                status=response.status_code,
            )
        return response


def _registered(item: dict[str, Any]) -> Registered:
    return Registered(
        version=item["modelVersion"],
        archive=item["modelUrl"],
        wanted=item["minWorkers"],
        workers=tuple(
            Worker(name=worker["id"], pid=worker["pid"], ready=worker["status"] == "READY")
            for worker in item["workers"]
        ),
        waiting=item["jobQueueStatus"]["pendingRequests"],
        startup_timeout=item["startupTimeout"],
    )


def _reason(response: httpx.Response) -> str:
    """TorchServe's own message, in one line."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return " ".join(str(response.json()["message"]).split())
    return " ".join(response.text[:200].split()) or response.reason_phrase
