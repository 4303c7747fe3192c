"""Public data sets -> a local cache, from Kaggle, Zenodo or plain URLs."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from fakenews.errors import DataError, interruption

_BLOCK = 1 << 16


def download(
    *,
    files: Sequence[str],
    cache_dir: str | Path | None = None,
    kaggle: str | None = None,
    zenodo: str | int | None = None,
    urls: Sequence[str] = (),
    sha256: Mapping[str, str] | None = None,
    base_url: str = "https://zenodo.org",
    timeout: float = 30.0,
    max_bytes: int = 2 << 30,
) -> list[Path]:
    """Fetch files once; later calls use the cache and no network.

    For each file the sources are tried in this order: Kaggle (needs ``kagglehub``), the
    Zenodo record, the URL. A file appears in the cache whole and checked, or not at all.

    Args:
        files: Names of the files in the data set.
        cache_dir: Folder for them, made if need be; None takes ``~/.cache/fakenews``.
        kaggle: Data set handle, ``owner/name``.
        zenodo: Record number.
        urls: A URL for each of ``files``.
        sha256: Expected digest by file name; names without one are not checked.
        base_url: Where Zenodo is.
        timeout: Seconds to wait for a connection, and between two blocks of a file.
        max_bytes: Largest file accepted.

    Returns:
        The cached paths, in the order of ``files``.

    Raises:
        DataError: A file cannot be had from any source, has the wrong digest or is too
            large, or the cache cannot be written; says how to use a local copy.
    """
    if urls and len(urls) != len(files):
        raise DataError(f"{len(urls)} urls for {len(files)} files: give one for each")
    if not files or not (kaggle or zenodo or urls):
        raise DataError("nothing to download: name files, and a Kaggle, Zenodo or URL source")
    digests, folder = sha256 or {}, Path(cache_dir or "~/.cache/fakenews").expanduser()
    paths, faults = [], []
    for i, name in enumerate(files):
        target = folder / Path(name).name
        paths.append(target)
        if target.is_file() and _digest_fault(target, digests.get(name)) is None:
            continue
        sources: dict[str, Callable[[IO[bytes]], None]] = {}
        if kaggle:
            sources["Kaggle"] = partial(_from_kaggle, kaggle, name)
        if zenodo:
            url = f"{base_url}/records/{zenodo}/files/{quote(name)}?download=1"
            sources["Zenodo"] = partial(_from_url, url, timeout, max_bytes)
        if urls:
            host = urlsplit(urls[i]).hostname or "URL"
            sources[host] = partial(_from_url, urls[i], timeout, max_bytes)
        reasons = _fetch(target, sources, digests.get(name))
        if reasons:
            faults.append(f"cannot download {name!r} ({', '.join(reasons)})")
    if faults:
        faults[-1] += f"; with a local copy, set data.path=FILE, or put it at {paths[-1]}"
        raise DataError(faults)
    return paths


def _fetch(
    target: Path, sources: Mapping[str, Callable[[IO[bytes]], None]], digest: str | None
) -> list[str]:
    """Try the sources in turn; empty when one worked, else why each failed."""
    reasons = []
    for source, fetch in sources.items():
        temporary: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=target.parent, prefix=".part-", delete=False
            ) as out:
                temporary = Path(out.name)
                fetch(out)
            if (fault := _digest_fault(temporary, digest)) is None:
                temporary.chmod(0o644)  # temporary files are private, a cache is not
                temporary.replace(target)
                return []
        except OSError as error:
            if temporary is None:
                raise DataError(
                    f"{target.parent}: cannot be written ({error.strerror})"
                ) from error
            fault = _reason(error)
        except _SourceError as error:
            fault = str(error)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        reasons.append(f"{source}: {fault}")
    return reasons


class _SourceError(Exception):
    """One source cannot give the file; another might."""


def _from_kaggle(handle: str, name: str, out: IO[bytes]) -> None:
    try:
        import kagglehub
    except ImportError:
        raise _SourceError("kagglehub is not installed") from None
    try:
        found = Path(kagglehub.dataset_download(handle, path=name))
    except Exception as error:
        if interruption(error) is not None:
            raise
        # Any kind: kagglehub documents none, and the next source may still work.
        raise _SourceError(_reason(error)) from error
    with found.open("rb") as file:
        shutil.copyfileobj(file, out)


def _from_url(url: str, timeout: float, max_bytes: int, out: IO[bytes]) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise _SourceError(f"{url!r} is not an http(s) address")
    request = Request(url, headers={"User-Agent": "fakenews"})  # noqa: S310 - scheme checked
    with urlopen(request, timeout=timeout) as response:  # noqa: S310 - scheme checked
        announced = response.headers.get("Content-Length")
        size = int(announced) if announced else None
        if response.headers.get_content_type() == "text/html":
            raise _SourceError("it answered with a web page, not with a file")
        if (size or 0) > max_bytes:
            raise _SourceError(f"{size:,} bytes are more than the limit of {max_bytes:,}")
        received = 0
        name = urlsplit(url).path.rpartition("/")[2]
        with tqdm(desc=name, total=size, unit="B", unit_scale=True, delay=0.5) as bar:
            while block := response.read(_BLOCK):
                received += len(block)
                if received > max_bytes:
                    raise _SourceError(f"more than the limit of {max_bytes:,} bytes")
                out.write(block)
                bar.update(len(block))
    if size is not None and received != size:
        raise _SourceError(f"broke off after {received:,} of {size:,} bytes")


def _digest_fault(path: Path, expected: str | None) -> str | None:
    if expected is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == expected.lower() else f"its sha256 is {found}, not {expected}"


def _reason(error: Exception) -> str:
    """The cause of a failed request in a few words; libraries nest theirs at length."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    text = str(error)
    if "resolution" in text or "Name or service" in text or "getaddrinfo" in text:
        return "no network, or no such host"
    return (text.splitlines() or [type(error).__name__])[0][:200]
