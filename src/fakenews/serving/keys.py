"""TorchServe's keys, which it makes when it starts, and ends after an hour.

One opens predictions, one the management API; a third makes new ones. TorchServe keeps them
in a file of its working directory.
"""

import json
import re
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
from filelock import FileLock, Timeout

from fakenews.errors import ServingError

Kind = Literal["inference", "management"]

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""TorchServe is asked without TLS: to read the usual ones takes longer than its answer."""

# TorchServe writes the file in place: a reader may meet half of it.
_HALF_WRITTEN = 1.0
_LOCK_PATIENCE = 30


class Unreachable(ServingError):
    """TorchServe does not answer at all."""


class Refused(ServingError):
    """TorchServe answers that it will not, or cannot.

    Args:
        message: One line.
        status: Of the answer.
    """

    def __init__(self, message: str, *, status: int) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as the file has it.

    Attributes:
        token: What a request carries.
        expires: When it ends; None if it does not.
    """

    token: str
    expires: datetime | None


class Keys:
    """TorchServe's keys, read from its file again whenever that changes.

    May be used by several threads, and by several processes with the same file.

    Args:
        path: key_file.json in TorchServe's working directory.
        address: URL of the management API, which makes new keys.
        timeout: Seconds for it to answer.
    """

    def __init__(self, path: Path, *, address: str, timeout: float = 10) -> None:
        self._path = path
        self._address = address
        self._timeout = timeout
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._given: dict[str, str] = {}
        self._mutex = threading.Lock()

    def inference(self) -> str:
        """The key of predictions.

        Raises:
            ServingError: The file cannot be read.
        """
        return self.key("inference")

    def management(self) -> str:
        """The key of the management API; as `inference`."""
        return self.key("management")

    def key(self, kind: Kind) -> str:
        """The key of an API; as `inference`."""
        token = self._read()[kind].token
        self._given[kind] = token
        return token

    def refresh(self, kind: Kind = "inference", *, refused: str | None = None) -> None:
        """Have a new key made, unless there is one already; blocks.

        Args:
            kind: Of which API.
            refused: The key that is no longer taken; None means the one last given.

        Raises:
            ServingError: TorchServe cannot be reached, or is not the one of the file.
        """
        refused = refused or self._given.get(kind)
        lock = FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_PATIENCE)
        try:
            # A new key ends the old one: processes must not end each other's in turn.
            with lock:
                found = self._read()
                if refused is not None and found[kind].token != refused:
                    return
                self._ask(kind, found["API"].token)
        except Timeout as error:
            raise ServingError(
                f"{lock.lock_file} has been locked for {_LOCK_PATIENCE} seconds: end the "
                "process that holds it"
            ) from error
        except OSError as error:
            raise ServingError(f"{lock.lock_file}: {error.strerror}") from error

    def refresh_expiring(self, within: float) -> None:
        """Have new keys made for those that end soon; blocks. As `refresh`.

        Args:
            within: Seconds.
        """
        for kind in ("inference", "management"):
            found = self._read()[kind]
            if found.expires is None:
                continue
            if (found.expires - datetime.now(UTC)).total_seconds() < within:
                self.refresh(kind, refused=found.token)

    def _ask(self, kind: Kind, token: str) -> None:
        url = f"{self._address}/token?type={kind}"
        try:
            response = httpx.get(
                url,
                headers={"authorization": f"Bearer {token}"},
                timeout=self._timeout,
                trust_env=False,
                verify=NO_CERTIFICATES,
            )
        except httpx.HTTPError as error:
            raise Unreachable(unreachable(self._address, error)) from error
        if not response.is_success:
            raise Refused(
                f"{self._address} refuses the keys of {self._path}: they are of another "
                "TorchServe; give the serve.dir of this one, or start it again",
                status=response.status_code,
            )

    def _read(self) -> dict[str, Key]:
        deadline = time.monotonic() + _HALF_WRITTEN
        while True:
            try:
                with self._mutex:
                    return self._read_once()
            except FileNotFoundError as error:
                raise Unreachable(
                    f"{self._path} does not exist: start TorchServe, or give its serve.dir"
                ) from error
            except OSError as error:
                raise ServingError(f"{self._path} cannot be read: {error.strerror}") from error
            except (ValueError, KeyError, TypeError) as error:
                if time.monotonic() > deadline:
                    raise ServingError(
                        f"{self._path} is damaged: start TorchServe again"
                    ) from error
            time.sleep(0.01)

    def _read_once(self) -> dict[str, Key]:
        found = self._path.stat()
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            self._keys = {
                name: Key(
                    token=content[name]["key"],
                    expires=_time(content[name].get("expiration time")),
                )
                for name in ("inference", "management", "API")
            }
            self._seen = seen
        return self._keys


def unreachable(address: str, error: httpx.HTTPError) -> str:
    """What to say when TorchServe does not answer."""
    reason = str(error).removeprefix("[Errno 111] ") or type(error).__name__
    return f"TorchServe cannot be reached at {address}: {reason}"


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    # Java writes nanoseconds.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
