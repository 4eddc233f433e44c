"""Memory that a training keeps from step to step.

Each step allocates and frees the same gigabytes. By default an allocator gives large blocks back to
the system at once, which has to clear every page of the next step's anew: a sixth to a third of the
time of a step (ResNet50, batch 16).
"""

import ctypes

# mallopt(3).
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = -1


def keep_memory() -> None:
    """From now on keep what is freed for later steps, with glibc's or jemalloc's malloc.

    Another allocator, or another C library, stays as it is.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallctl"):
        _keep_in_jemalloc(library.mallctl)
    elif hasattr(library, "mallopt"):
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, NEVER)


def _keep_in_jemalloc(mallctl: "ctypes._NamedFuncPointer") -> None:
    """Let no arena decay, neither those to come nor those that are there.

    https://jemalloc.net/jemalloc.3.html, "MALLCTL NAMESPACE".
    """
    count = ctypes.c_uint()
    size = ctypes.c_size_t(ctypes.sizeof(count))
    mallctl.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3, ctypes.c_size_t]
    mallctl(b"arenas.narenas", ctypes.byref(count), ctypes.byref(size), None, 0)
    never = ctypes.c_ssize_t(NEVER)
    for arenas in ("arenas", *(f"arena.{number}" for number in range(count.value))):
        for kind in ("dirty", "muzzy"):
            # Of an arena that is not in use yet this fails, and the first one counts for it.
            name = f"{arenas}.{kind}_decay_ms".encode()
            mallctl(name, None, None, ctypes.byref(never), ctypes.sizeof(never))
