import ctypes
import resource

import pytest

from training import memory


def test_freed_blocks_are_used_again_instead_of_cleared_by_the_system():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        pytest.skip("the C library is not glibc")
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    size, times = 40 * 2**20, 10
    libc.mallopt(-3, 128 * 1024)  # as TensorFlow does

    def page_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            block = libc.malloc(size)
            ctypes.memset(block, 1, size)
            libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages = size // resource.getpagesize()
    huge_pages = page_faults() < pages
    memory.keep_freed()
    if huge_pages:
        pytest.skip("the system gives memory in huge pages here, which hides the difference")
    assert page_faults() < 2 * pages
