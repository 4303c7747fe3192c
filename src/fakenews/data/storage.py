"""One folder of files, on a local disk or in an object store.

Writing is whole or not at all. A store in trouble is asked again for a while, and every
failure is a `DataError` of one line.
"""

import builtins
import hashlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO, TypeVar, cast

from fakenews.data.filesystems import (
    LOCAL,
    LocalFolder,
    RemoteFolder,
    is_draft,
    protocol,
    public,
)
from fakenews.data.storage_errors import explain, hide, transient
from fakenews.errors import ConfigError, DataError, interruption

T = TypeVar("T")

log = logging.getLogger(__name__)

_TRIAL = ".trial"
_BLOCK = 8 << 20
_BUFFER = 1 << 20

# Seconds. A wrong address shows soon; a store that has answered once is waited for.
_FIRST_PATIENCE = 5.0
_PATIENCE = 60.0
_LONGEST_WAIT = 8.0
_SILENCE = 10.0


class Storage:
    """A folder on a local disk or in an object store, through fsspec.

    Reading is safe from several threads, and an instance can be sent to another process.

    Args:
        url: A path, or a URL of any protocol that fsspec knows (``s3://BUCKET/PREFIX``).
        options: Storage options of that protocol (``endpoint_url``, ``profile``, ``anon``,
            ...); None is as if not given. Without them, S3 credentials come from the usual
            environment and profiles.

    Attributes:
        url: The folder without credentials and final slash, for messages.
        is_local: Whether it is on a file system of this machine.

    Raises:
        ConfigError: The protocol is unknown, its package is not installed, or the URL holds
            credentials, which would end up in logs and configurations.
    """

    def __init__(self, url: str | Path, *, options: Mapping[str, Any] | None = None) -> None:
        given = os.fspath(url)
        self._given = given
        # A configuration names options that are not set, as null.
        self._options = {k: v for k, v in (options or {}).items() if v is not None}
        self.is_local = protocol(given) in LOCAL
        self._answered = False
        self._files: LocalFolder | RemoteFolder
        if self.is_local:
            path = given.partition("://")[2] if protocol(given) else given
            if not path:
                raise ConfigError("the path of a folder is empty: give one")
            self.url = given.rstrip("/") or "/"
            self._files = LocalFolder(path)
        else:
            self.url = public(given)
            self._files = RemoteFolder(given, self._options)

    def below(self, folder: str) -> "Storage":
        """A folder in this one; itself for an empty name."""
        return _storage(f"{self._given.rstrip('/')}/{folder}".rstrip("/"), self._options)

    def __repr__(self) -> str:
        """Without options: they may be secret."""
        return f"Storage({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Connections stay in their process."""
        return _storage, (self._given, self._options)

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading at any place, by one thread.

        Args:
            path: Relative to the folder.

        Raises:
            DataError: It is missing or cannot be read, now or at a later ``read``.
        """
        key = self._key(path)
        reader = self._attempt(path, lambda: _Reader(self._files.open(key), self, path))
        return cast("BinaryIO", io.BufferedReader(reader, _BUFFER))

    def read_bytes(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self.open(path) as file:
            return file.read()

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file, whole or not at all; an older one is replaced.

        Raises:
            DataError: It cannot be written; an older one is intact.
        """
        key = self._key(path)
        self._attempt(path, lambda: self._files.write(key, content))

    def publish(self, local: Path, path: str) -> None:
        """Copy a finished local file to its place, whole or not at all.

        Args:
            local: Stays where it is.
            path: Relative to the folder; an older file there is replaced.

        Raises:
            DataError: It cannot be read or written; an older one is intact.
        """
        key = self._key(path)
        try:
            local.open("rb").close()
        except OSError as error:
            raise DataError(f"{local}: {explain(error, local=True)}") from error
        self._attempt(path, lambda: self._files.publish(local, key))

    def try_to_write(self) -> None:
        """Write a file and delete it, to notice before long work that it has no place.

        Raises:
            DataError: Nothing can be written.
        """

        def action() -> None:
            self._files.write(_TRIAL, b"")
            self._files.delete(_TRIAL)

        self._attempt("", action)

    def discard_drafts(self) -> None:
        """Remove what killed processes left half-written; nobody may be writing now.

        Raises:
            DataError: A file cannot be removed.
        """
        self._attempt("", self._files.discard_drafts)

    def size(self, path: str) -> int | None:
        """Bytes of a file; None if there is no such file.

        Raises:
            DataError: The store cannot be asked, or has no such bucket.
        """
        key = self._key(path)
        return self._attempt(path, lambda: self._files.size(key))

    def list(self, prefix: str = "") -> dict[str, int]:
        """Every file in the folder, or in a folder below it.

        Args:
            prefix: The folder below, relative; empty for all.

        Returns:
            Path relative to the root -> bytes, sorted by path, without drafts of files that
            are being written; empty if the folder does not exist.

        Raises:
            DataError: The folder cannot be listed, or there is no such bucket.
        """
        below = self._key(prefix.rstrip("/")) if prefix else ""
        found = self._attempt(below, lambda: builtins.list(self._files.files(below)))
        return {path: size for path, size in sorted(found) if not is_draft(path)}

    def delete(self, path: str) -> None:
        """Delete a file; one that is missing is fine.

        Raises:
            DataError: It cannot be deleted.
        """
        key = self._key(path)
        self._attempt(path, lambda: self._files.delete(key))

    def sha256(self, path: str, progress: Callable[[int], object] | None = None) -> str:
        """SHA-256 of a file as hexadecimal digits, read in blocks.

        Args:
            path: Relative to the folder.
            progress: Is told the bytes of each block.

        Raises:
            DataError: It is missing or cannot be read.
        """
        digest = hashlib.sha256()
        with self.open(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if progress is not None:
                    progress(len(block))
        return digest.hexdigest()

    def _key(self, path: str) -> str:
        """The path, if it is one inside the folder."""
        wrong = any(part in ("", ".", "..") for part in path.split("/"))
        if wrong or "\\" in path or "\0" in path:
            raise DataError(
                f"{self.url}: {path!r} is no path inside the folder: use names and single "
                "slashes"
            )
        return path

    def _attempt(self, path: str, action: Callable[[], T]) -> T:
        """Do it, again if a store is in trouble for a while, and explain a failure."""
        started, wait = time.monotonic(), 0.2
        while True:
            try:
                with nullcontext() if self.is_local or self._answered else _told(self.url):
                    result = action()
            except (ConfigError, DataError, TypeError, AttributeError, AssertionError):
                raise
            # Each library behind fsspec has errors of its own.
            except Exception as error:
                # A signal is no trouble of the store.
                if interruption(error) is not None:
                    raise
                patience = _PATIENCE if self._answered else _FIRST_PATIENCE
                waited = time.monotonic() - started
                if self.is_local or not transient(error) or waited + wait > patience:
                    where = f"{self.url.rstrip('/')}/{path}" if path else self.url
                    reason = hide(explain(error, local=self.is_local), self._options)
                    raise DataError(f"{where}: {reason}") from error
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self._answered = True
                return result


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Say so if the block waits for long."""
    waiting = Timer(
        _SILENCE,
        log.warning,
        ("%s: the store has not answered for %g s; waiting some more", url, _SILENCE),
    )
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


class _Reader(io.RawIOBase):
    """Bytes of an open file, with the storage's patience and its words for a failure."""

    def __init__(self, file: BinaryIO, storage: Storage, path: str) -> None:
        self._file, self._storage, self._path = file, storage, path
        self._size = file.seek(0, os.SEEK_END)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the start of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        block = self._next(len(view))
        view[: len(block)] = block
        return len(block)

    def readall(self) -> bytes:
        # The one we inherit asks for 8 KiB at a time.
        blocks = []
        while block := self._next(self._size):
            blocks.append(block)
        return b"".join(blocks)

    def _next(self, most: int) -> bytes:
        wanted = min(most, max(0, self._size - self._at))
        if wanted == 0:
            return b""

        def read() -> bytes:
            # A read that failed may have moved the file's own place.
            self._file.seek(self._at)
            return self._file.read(wanted)

        block = self._storage._attempt(self._path, read)  # noqa: SLF001 its own class
        if not block:
            raise DataError(
                f"{self._storage.url}/{self._path}: ends after {self._at:,} of {self._size:,} "
                "bytes: it was changed while it was read; start again when it is complete"
            )
        self._at += len(block)
        return block

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _storage(url: str, options: Mapping[str, Any]) -> Storage:
    return Storage(url, options=options)
