"""Tensors in memory-mapped files: the disk tier.

Each tensor has its own file, and the file's blocks are reserved when it is created. A full disk
is therefore reported as an error at that point, and cannot crash a later write to a page.

Pages that were written or read stay in memory as part of the system's cache. While mapped, they
count as resident memory of this process. If memory is capped, the least recently used pages are
unmapped. Nothing is lost: the system writes them to the file and reads them back on demand.

Source: ours; the semantics are those of mmap(2) with MAP_SHARED, posix_fallocate(3), and
madvise(2) with MADV_DONTNEED on a shared file mapping.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from mom_core.errors import OutOfMemory
from mom_core.kv.scratch import ScratchFolder, not_writable
from mom_core.sizes import size_text

# Other programs fail on a disk that is filled to the last byte.
KEPT_FREE_BYTES = 256 * 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ZEROS_BYTES = 1 << 22


class MappedFiles:
    """Creates tensors in files, and limits how many of their pages stay in memory.

    Safe to use from two threads: the run that computes, and the one that saves checkpoints.

    Args:
        root: folder in which a private subfolder is created with the first tensor.
        resident_limit_bytes: the most bytes of pages kept mapped; None leaves it to the system.
            The KV of the layer in use may exceed it.
    """

    def __init__(self, root: Path, resident_limit_bytes: int | None = None) -> None:
        self._root = root
        self.resident_limit_bytes = resident_limit_bytes
        self._folder: ScratchFolder | None = None
        # Keyed by the address of the first byte.
        self._mappings: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
        self._in_use: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def require(self, wanted_bytes: int) -> None:
        """Checks that the disk has room.

        Args:
            wanted_bytes: bytes about to be written.

        Raises:
            OutOfMemory: the disk has less room than that.
            InvalidSetting: the folder cannot be used.
        """
        folder = self._open()
        free_bytes = max(0, shutil.disk_usage(folder.path).free - KEPT_FREE_BYTES)
        if wanted_bytes > free_bytes:
            raise self._full(wanted_bytes, free_bytes)

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor of zeros in its own file, which is deleted with the tensor's last view.

        Raises:
            OutOfMemory: the disk has no room for the tensor.
            InvalidSetting: the folder cannot be used.
        """
        size_bytes = math.prod(shape) * dtype.itemsize
        self.require(size_bytes)
        path = self._open().new_file()
        try:
            mapping = _map(path, size_bytes)
        except OSError as error:
            if error.errno in _FULL:
                free_bytes = shutil.disk_usage(self._root).free
                raise self._full(size_bytes, free_bytes) from error
            raise not_writable(self._root, error) from error
        weakref.finalize(mapping, path.unlink, missing_ok=True)
        tensor = torch.frombuffer(mapping, dtype=dtype).view(shape)
        with self._lock:
            self._mappings[tensor.data_ptr()] = mapping
        return tensor

    def touch(self, *tensors: Tensor) -> None:
        """Marks tensors as just used, and unmaps others if the limit is exceeded.

        Args:
            tensors: tensors created here, or views of them.
        """
        limit = self.resident_limit_bytes
        if limit is None:
            return
        with self._lock:
            for tensor in tensors:
                address = tensor.untyped_storage().data_ptr()
                if (mapping := self._mappings.get(address)) is not None:
                    self._in_use[address] = len(mapping)
                    self._in_use.move_to_end(address)
            resident = sum(self._in_use.values())
            while resident > limit and len(self._in_use) > len(tensors):
                address, size_bytes = self._in_use.popitem(last=False)
                resident -= size_bytes
                if (mapping := self._mappings.get(address)) is not None:
                    _unmap_pages(mapping, 0, len(mapping))

    def drop(self, view: Tensor) -> None:
        """Unmaps the pages of a contiguous view, if there is a limit."""
        storage = view.untyped_storage()
        with self._lock:
            mapping = self._mappings.get(storage.data_ptr())
        if self.resident_limit_bytes is None or mapping is None:
            return
        start = view.storage_offset() * view.element_size()
        _unmap_pages(mapping, int(start), int(start) + view.nbytes)

    def close(self) -> None:
        """Deletes the files. Tensors still referenced stay readable."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _open(self) -> ScratchFolder:
        if self._folder is None:
            self._folder = ScratchFolder(self._root)
        return self._folder

    def _full(self, wanted_bytes: int, free_bytes: int) -> OutOfMemory:
        return OutOfMemory(
            f"The disk is full: {size_text(wanted_bytes)} are needed in {self._root}, but only "
            f"{size_text(free_bytes)} are free. Make room there, choose a folder on another disk "
            "with scratch_folder (--scratch-folder), or leave out documents."
        )


def _map(path: Path, size_bytes: int) -> mmap.mmap:
    """A new private file, mapped for reading and writing, with all its blocks reserved."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _reserve(descriptor, size_bytes)
        return mmap.mmap(descriptor, size_bytes)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size_bytes: int) -> None:
    # With a sparse file, a full disk would kill the process with SIGBUS.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    for start in range(0, size_bytes, _ZEROS_BYTES):
        os.write(descriptor, bytes(min(_ZEROS_BYTES, size_bytes - start)))


def _unmap_pages(mapping: mmap.mmap, start: int, end: int) -> None:
    """Unmaps the pages of a byte range, including pages at its edges shared with neighbours."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, first, end - first)
