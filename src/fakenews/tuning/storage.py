"""Where the studies of sweeps are kept."""

from typing import TYPE_CHECKING

from fakenews.errors import TuningError
from fakenews.tracking.store import public

if TYPE_CHECKING:
    import optuna


def open_storage(url: str) -> "optuna.storages.RDBStorage":
    """Open the storage of studies at a database URL.

    Raises:
        TuningError: It cannot be opened, and why.
    """
    from optuna.storages import RDBStorage

    try:
        return RDBStorage(url)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), repr(error))
        raise TuningError(f"storage={public(url)} cannot be opened: {reason}") from error
