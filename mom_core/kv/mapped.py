"""Tensors in memory-mapped files: the disk tier.

Every tensor has a file of its own, whose blocks are reserved when it is made: a disk that is
full is a sentence then, and never a crash when a page is written later. Pages that were
written or read stay in memory as the system's cache, and count as this process's resident memory
while they are mapped. Where memory has a cap they are unmapped again, least recently used first;
nothing is lost by it, the system writes them to the file and brings them back when asked.

Source: ours; the semantics are those of mmap(2) with MAP_SHARED, posix_fallocate(3) and
madvise(2), MADV_DONTNEED on a shared file mapping.
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

# A disk that is filled to the last byte takes other programs down.
KEPT_FREE_BYTES = 256 * 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ZEROS_BYTES = 1 << 22


class MappedFiles:
    """Makes tensors in files, and keeps the pages they hold in memory within a limit.

    The run that computes and the thread that keeps what was read use it at the same time.

    Args:
        root: where the private folder is made, at the first tensor.
        resident_limit_bytes: limit on mapped pages; None leaves them to the system. What is in
            use at one time may exceed it: the keys and values of one layer.
    """

    def __init__(self, root: Path, resident_limit_bytes: int | None = None) -> None:
        self._root = root
        self.resident_limit_bytes = resident_limit_bytes
        self._folder: ScratchFolder | None = None
        # By the address of their first byte.
        self._mappings: weakref.WeakValueDictionary[int, mmap.mmap] = weakref.WeakValueDictionary()
        self._in_use: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def require(self, wanted_bytes: int) -> None:
        """Checks that so many bytes can be written.

        Raises:
            OutOfMemory: the disk has less room.
            InvalidSetting: the folder cannot be used.
        """
        folder = self._open()
        free_bytes = max(0, shutil.disk_usage(folder.path).free - KEPT_FREE_BYTES)
        if wanted_bytes > free_bytes:
            raise self._full(wanted_bytes, free_bytes)

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor of zeros in a file of its own, which is deleted with the last view of it.

        Raises:
            OutOfMemory: the disk has no room for it.
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
        """These tensors are used now; others leave memory if the limit asks for it.

        Args:
            tensors: made here, or views of such.
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
        """Lets go of the pages that hold a contiguous view, if there is a limit."""
        storage = view.untyped_storage()
        with self._lock:
            mapping = self._mappings.get(storage.data_ptr())
        if self.resident_limit_bytes is None or mapping is None:
            return
        start = view.storage_offset() * view.element_size()
        _unmap_pages(mapping, int(start), int(start) + view.nbytes)

    def close(self) -> None:
        """Deletes the files; tensors that are still held stay readable."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def _open(self) -> ScratchFolder:
        if self._folder is None:
            self._folder = ScratchFolder(self._root)
        return self._folder

    def _full(self, wanted_bytes: int, free_bytes: int) -> OutOfMemory:
        return OutOfMemory(
            f"The disk is full: {size_text(wanted_bytes)} are needed in {self._root}, and "
            f"{size_text(free_bytes)} can be used. Make room there, choose a folder on "
            "another disk with scratch_folder (--scratch-folder), or leave out documents."
        )


def _map(path: Path, size_bytes: int) -> mmap.mmap:
    """A new private file of this size, its blocks reserved, mapped for reading and writing."""
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
    # A file with holes would end the process with SIGBUS once the disk is full.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    for start in range(0, size_bytes, _ZEROS_BYTES):
        os.write(descriptor, bytes(min(_ZEROS_BYTES, size_bytes - start)))


def _unmap_pages(mapping: mmap.mmap, start: int, end: int) -> None:
    """Unmaps the pages of a range; at its edges also those that neighbours share."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, first, end - first)
