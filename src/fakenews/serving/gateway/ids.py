"""Ids of predictions: UUIDs of version 7, which sort by time and say when they were made."""

import os
import time
from datetime import UTC, datetime
from uuid import UUID


def new_id(milliseconds: int | None = None) -> str:
    """An id that no other prediction has.

    Args:
        milliseconds: Since 1970; None takes the clock.
    """
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    # Of RFC 9562: the version, and the variant.
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def made_at(identifier: str) -> datetime | None:
    """When an id was made; None for what is none of ours."""
    try:
        found = UUID(identifier)
    except ValueError:
        return None
    if found.version != 7 or str(found) != identifier:
        return None
    milliseconds = found.int >> 80
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
