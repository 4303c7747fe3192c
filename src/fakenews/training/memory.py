"""How the C library's allocator treats memory that torch frees."""

import ctypes
import platform

# Of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the process keep the memory that it frees, to use it again.

    Otherwise glibc hands large blocks back to the system, which clears every page of
    them anew at the next step: a twentieth of the time of a step goes there on a CPU. The
    process then holds on to the most it ever needed.

    Returns:
        Whether it was set: False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
