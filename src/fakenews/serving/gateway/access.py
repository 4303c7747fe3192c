"""Who may ask, how often, and by which name of the server."""

import hashlib
import hmac
import ipaddress
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from fakenews.errors import ConfigError
from fakenews.serving.gateway.problems import Problem

KEYS = "FAKENEWS_API_KEYS"
"""API keys in the environment, between commas, each KEY or NAME:KEY."""

_SHORTEST = 16


def read_keys(file: str | None) -> dict[str, bytes]:
    """The API keys that are accepted: a digest by each name.

    Args:
        file: With a key a line, NAME:KEY; lines that begin with `#` say nothing. None: only
            those of the environment.

    Raises:
        ConfigError: The file cannot be read, or a key is too short.
    """
    given = [key for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(
                f"the API keys in {file} cannot be read: {reason}; "
                "write one a line, as NAME:KEY"
            ) from error
        found = [line for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file} has no API keys: write one a line, as NAME:KEY")
        given += found
    keys: dict[str, bytes] = {}
    for number, line in enumerate(given, start=1):
        name, colon, key = line.strip().rpartition(":")
        if len(key.strip()) < _SHORTEST:
            raise ConfigError(
                f"API key {number} is shorter than {_SHORTEST} characters: make one with "
                "`openssl rand -hex 32`"
            )
        keys[name.strip() if colon else f"key{number}"] = _digest(key.strip())
    return keys


class Access:
    """Decides on requests before anything of them is read.

    Args:
        keys: Digests of the API keys, by name; none asks for none.
        rate: Requests of one key, or of one address, as in `600/minute`; None for any.
        trusted_hosts: Names by which the server may be called; `*` for any.

    Raises:
        ConfigError: The rate is none.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, bytes],
        rate: str | None,
        trusted_hosts: Sequence[str],
    ) -> None:
        self._keys = dict(keys)
        self._hosts = {host.lower() for host in trusted_hosts}
        self._rate: limits.RateLimitItem | None = None
        if rate is not None:
            try:
                self._rate = limits.parse(rate)
            except ValueError as error:
                raise ConfigError(f"rate={rate}: write it as in 600/minute") from error
            self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check_host(self, host: str) -> None:
        """Refuse names that are not ours: a page of another site may have made them ours.

        Args:
            host: The header Host.

        Raises:
            Problem: It is not among those trusted.
        """
        if "*" in self._hosts:
            return
        name = host.lower()
        name = name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]
        if name not in self._hosts:
            raise Problem(
                400, "unknown_host", "the server is not known by this name: see trusted_hosts"
            )

    def identify(self, headers: Mapping[bytes, bytes], *, needed: bool) -> str | None:
        """The name of the key that a request has.

        Args:
            headers: Of the request, in lower case.
            needed: Whether it must have one.

        Raises:
            Problem: It needs one, and has none or a wrong one.
        """
        if not self._keys:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            given = headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(given.strip()).digest()
        found = None
        for name, known in self._keys.items():
            # All of them, so that the time says nothing.
            if hmac.compare_digest(digest, known):
                found = name
        if found is None and needed:
            raise Problem(
                401, "no_key", "give an API key: Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        return found

    async def admit(self, who: str) -> None:
        """Count a request.

        Args:
            who: A key's name, or an address.

        Raises:
            Problem: There were too many.
        """
        if self._rate is None or await self._limiter.hit(self._rate, who):
            return
        reset, _ = await self._limiter.get_window_stats(self._rate, who)
        wait = max(math.ceil(reset - time.time()), 1)
        raise Problem(
            429, "too_many_requests", f"at most {self._rate}: ask again later", retry_after=wait
        )


def client(address: str) -> str:
    """What stands for an address: of IPv6, the network that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
