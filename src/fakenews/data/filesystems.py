"""The two kinds of folder that a `Storage` can be: on this machine, or behind fsspec.

Both have the same methods, take paths that were checked, and raise what the system raises.
A file appears whole or not at all: object stores promise it, and elsewhere a draft beside
the place is renamed.
"""

import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from fakenews.data.storage_errors import bucket_missing, hide
from fakenews.errors import ConfigError, DataError

LOCAL = ("", "file", "local")
"""The protocols of this machine."""

S3 = ("s3", "s3a")

# An upload there shows when it is complete. Elsewhere it grows before everybody's eyes.
_OBJECT_STORES = (*S3, "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "r2")

_BLOCK = 8 << 20
_PART = 16 << 20  # of an upload; S3 takes up to 10,000
_PARTS_AT_ONCE = 4

# Seconds to connect, and without a byte: with the second attempt, a store that says nothing
# is given up after about 40. s3fs' own retries would multiply with those of `Storage` and
# of the client, whose second attempt spares a large upload a new start.
_S3_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "retries": {"total_max_attempts": 2, "mode": "standard"},
}

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.part")


class LocalFolder:
    """A folder on a file system of this machine.

    Args:
        path: It need not exist.
    """

    def __init__(self, path: str) -> None:
        self._folder = Path(path).expanduser()

    def open(self, key: str) -> BinaryIO:
        """Open for reading."""
        # The reader has a buffer of its own.
        return cast("BinaryIO", (self._folder / key).open("rb", buffering=0))

    def write(self, key: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with _drafted(self._folder / key) as file:
            file.write(content)

    def publish(self, local: Path, key: str) -> None:
        """Copy a file to its place, whole or not at all."""
        with _drafted(self._folder / key) as file, local.open("rb") as content:
            shutil.copyfileobj(content, file, _BLOCK)

    def discard_drafts(self) -> None:
        """Remove files that were being written when their process died."""
        for path in self._folder.rglob(".*"):
            if is_draft(path.name):
                path.unlink(missing_ok=True)

    def size(self, key: str) -> int | None:
        """Bytes, or None for what is no file."""
        with suppress(FileNotFoundError):
            path = self._folder / key
            return None if path.is_dir() else path.stat().st_size
        return None

    def files(self, below: str) -> Iterator[tuple[str, int]]:
        """Path and bytes of every file under ``below``."""
        folder = self._folder / below
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self.files(path)
            elif entry.is_file():
                # Others may rename or delete files meanwhile.
                with suppress(FileNotFoundError):
                    yield path, entry.stat().st_size

    def delete(self, key: str) -> None:
        """Delete a file that may not exist."""
        (self._folder / key).unlink(missing_ok=True)


class RemoteFolder:
    """A folder behind fsspec. Connects when it is first used, once a process.

    Args:
        url: Of any protocol that fsspec knows.
        options: Storage options.

    Raises:
        ConfigError: The protocol is unknown, its package is not installed, or the URL holds
            credentials.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url, self._options = url, options
        self._protocol = protocol(url)
        self._lock = threading.Lock()
        self._connected: tuple[int, Any, str] | None = None
        _check(url, self._protocol)

    def open(self, key: str) -> BinaryIO:
        """Open for reading."""
        fs, root = self._filesystem()
        # The reader's buffer is the cache; fsspec's reads 50 MB ahead, whatever is wanted.
        caching = {"cache_type": "none"} if fs.async_impl else {}
        return cast("BinaryIO", fs.open(f"{root}/{key}", "rb", **caching))

    def write(self, key: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        self._put(key, lambda fs, target: fs.pipe_file(target, content))

    def publish(self, local: Path, key: str) -> None:
        """Copy a local file to its place, whole or not at all."""
        # Small parts need little memory; very large files need larger ones.
        part = max(_PART, -(-local.stat().st_size // 9_000))
        options = {"chunksize": part} if self._protocol in S3 else {}
        self._put(key, lambda fs, target: fs.put_file(str(local), target, **options))

    def discard_drafts(self) -> None:
        """Nothing: an object appears when its upload is complete."""

    def size(self, key: str) -> int | None:
        """Bytes, or None for what is no file."""
        fs, root = self._filesystem()
        try:
            info = fs.info(f"{root}/{key}")
        except FileNotFoundError as error:
            if bucket_missing(error):
                raise
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def files(self, below: str) -> Iterator[tuple[str, int]]:
        """Path and bytes of every file under ``below``."""
        fs, root = self._filesystem()
        try:
            found = fs.find(f"{root}/{below}".rstrip("/"), detail=True)
        except FileNotFoundError as error:
            if bucket_missing(error):
                raise
            return
        for name, info in found.items():
            path = str(name).removeprefix(f"{root}/")
            # A name that ends in a slash is how some tools keep an empty folder.
            if info["type"] == "file" and path != name and not path.endswith("/"):
                yield path, int(info["size"])

    def delete(self, key: str) -> None:
        """Delete a file that may not exist."""
        fs, root = self._filesystem()
        try:
            fs.rm_file(f"{root}/{key}")
        except FileNotFoundError as error:
            if bucket_missing(error):
                raise

    def _put(self, key: str, write: Callable[[Any, str], object]) -> None:
        fs, root = self._filesystem()
        target = f"{root}/{key}"
        if self._protocol in _OBJECT_STORES:
            write(fs, target)
            return
        folder, _, name = target.rpartition("/")
        fs.makedirs(folder, exist_ok=True)
        draft = f"{folder}/{_draft_name(name)}"
        try:
            write(fs, draft)
            fs.mv(draft, target)
        except BaseException:
            with suppress(Exception):
                fs.rm_file(draft)
            raise

    def _filesystem(self) -> tuple[Any, str]:
        """The file system and the root in it."""
        with self._lock:
            # A forked process has copies of its parent's sockets and none of its threads.
            if self._connected is None or self._connected[0] != os.getpid():
                fs, root = _connect(self._url, self._protocol, self._options)
                self._connected = (os.getpid(), fs, root.rstrip("/"))
            return self._connected[1:]


def protocol(url: str) -> str:
    """The protocol of a URL (of a chain the first), empty for a path."""
    match = re.match(r"(\w[\w+.-]+?)(?:://|::)", url)
    return match[1].lower() if match else ""


def public(url: str) -> str:
    """A URL without user, password and query (which may be a signature), and final slash."""
    return re.sub(r"(?<=//)[^/]*@", "", url).partition("?")[0].rstrip("/")


def is_draft(path: str) -> bool:
    """Whether a file is one that is being written, or was when its process died."""
    return _DRAFT.fullmatch(path.rpartition("/")[2]) is not None


def _draft_name(name: str) -> str:
    return f".{name}.{secrets.token_hex(4)}.part"


@contextmanager
def _drafted(target: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place when all went well."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # as in /proc
        raise DataError(
            f"{target.parent}: the folder cannot be made: choose another place"
        ) from None
    draft = target.with_name(_draft_name(target.name))
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # The new name is on the disk only when the folder is.
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(url: str, name: str) -> None:
    if name in S3 and not re.search(r"://[^/]", url):
        raise ConfigError(f"{url}: names no bucket: write s3://BUCKET/PREFIX")
    authority = re.search(r"//([^/]*)@", url)
    if authority is not None and (":" in authority[1] or name in _OBJECT_STORES):
        raise ConfigError(
            f"{public(url)}: the URL holds credentials, and it is written to files: use the "
            "environment (for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        )
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            f"{public(url)}: needs the package fsspec: pip install 'fakenews[train]'"
        ) from None
    try:
        fsspec.get_filesystem_class(name)
    except ValueError:
        raise ConfigError(
            f"{public(url)}: there is no protocol {name!r}: use a path, s3://BUCKET/PREFIX, "
            "or another protocol of fsspec"
        ) from None
    except ImportError as error:
        raise ConfigError(f"{public(url)}: {_needed(name) or error}") from None


def _needed(name: str) -> str | None:
    """Which package a protocol needs; None if it is not one of its own."""
    from fsspec.registry import known_implementations  # type: ignore[import-untyped]

    if name in S3:
        return "needs the package s3fs: pip install 'fakenews[s3]'"
    package = known_implementations.get(name, {}).get("class", "").partition(".")[0]
    if package in ("", "fsspec"):
        return None
    return f"needs the package {package}: pip install {package}"


def _connect(url: str, name: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    # Which credentials are found, they say at each start.
    for library in ("botocore", "aiobotocore"):
        logging.getLogger(f"{library}.credentials").setLevel(logging.WARNING)
    # Not shared with others, and listings are not remembered: files come and go.
    wanted = {"use_listings_cache": False, "skip_instance_cache": True, **options}
    if name in S3:
        config = {**_S3_CONFIG, **(options.get("config_kwargs") or {})}
        wanted = {"max_concurrency": _PARTS_AT_ONCE, **wanted, "config_kwargs": config}
    try:
        fs, root = url_to_fs(url, **wanted)
        if name in S3:
            fs.retries = 1
            _prepare_client(fs.connect())
    except (TypeError, ValueError, KeyError) as error:
        reason = hide(next(iter(str(error).splitlines()), repr(error))[:200], options)
        raise ConfigError(
            f"{public(url)}: a storage option is wrong ({reason}): mend it"
        ) from error
    return fs, str(root)


def _prepare_client(client: Any) -> None:
    """Settings that s3fs does not hand on."""
    from botocore.handlers import add_expect_header  # type: ignore[import-untyped]

    # To be asked before an upload is a wait that no timeout ends.
    client.meta.events.unregister("before-call.s3", add_expect_header)
