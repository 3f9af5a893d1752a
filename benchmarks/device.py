"""Where a measurement runs: a CUDA card, or the CPU in its place.

Everything that only CUDA has is called here and nowhere else in the benchmarks, so a dry run on
the CPU runs all the rest.
"""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from benchmarks.resident import reset_resident_peak, resident_peak_bytes


class Device:
    """The CPU: its memory is that of this process."""

    kind = "cpu"

    def __init__(self) -> None:
        self.torch_device = torch.device("cpu")

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {"device": "cpu", "device_total_bytes": self.total_bytes()}

    def total_bytes(self) -> int:
        """Of the device."""
        return int(psutil.virtual_memory().total)

    def overhead_bytes(self) -> int:
        """Taken by the CUDA context and by other programs, not by tensors."""
        return 0

    def synchronize(self) -> None:
        """Waits until everything queued has run."""

    def reset_peak(self) -> None:
        """Peaks count from now on."""
        reset_resident_peak()

    def peak_bytes(self) -> int:
        """The most that tensors took; on the CPU the most this process had resident."""
        return resident_peak_bytes()

    def reserved_peak_bytes(self) -> int:
        """The same with what torch's allocator kept beside it."""
        return resident_peak_bytes()

    @contextmanager
    def capped(self, limit_bytes: int) -> Iterator[None]:
        """Inside, torch takes no more than this, the CUDA context included; not on the CPU."""
        yield

    def free(self) -> None:
        """Gives back what nobody refers to any more; the CPU's allocator does so itself."""


class CudaDevice(Device):
    """The first CUDA card."""

    kind = "cuda"

    def __init__(self) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call, unused-ignore]
        self.torch_device = torch.device("cuda", 0)
        torch.cuda.set_device(self.torch_device)

    def describe(self) -> dict[str, Any]:
        """For the record."""
        properties = torch.cuda.get_device_properties(self.torch_device)
        return {
            "device": properties.name,
            "device_total_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }

    def total_bytes(self) -> int:
        """Of the card."""
        return int(torch.cuda.get_device_properties(self.torch_device).total_memory)

    def overhead_bytes(self) -> int:
        """Taken by the CUDA context and by other programs, not by tensors."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        return int(total - free - torch.cuda.memory_reserved(self.torch_device))

    def synchronize(self) -> None:
        """Waits until everything queued on any stream has run."""
        torch.cuda.synchronize(self.torch_device)

    def reset_peak(self) -> None:
        """Peaks count from now on."""
        torch.cuda.reset_peak_memory_stats(self.torch_device)

    def peak_bytes(self) -> int:
        """The most that tensors took."""
        return int(torch.cuda.max_memory_allocated(self.torch_device))

    def reserved_peak_bytes(self) -> int:
        """The most that torch's allocator held."""
        return int(torch.cuda.max_memory_reserved(self.torch_device))

    @contextmanager
    def capped(self, limit_bytes: int) -> Iterator[None]:
        """Inside, torch takes no more than this, the CUDA context included."""
        self.free()
        share = (limit_bytes - self.overhead_bytes()) / self.total_bytes()
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), self.torch_device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.torch_device)

    def free(self) -> None:
        """Gives back what nobody refers to any more, to the driver too."""
        gc.collect()
        torch.cuda.synchronize(self.torch_device)
        torch.cuda.empty_cache()


def find_device(*, dry_run: bool) -> Device:
    """The CUDA card, or the CPU for a dry run.

    Raises:
        SystemExit: there is no card and it is no dry run.
    """
    if dry_run:
        return Device()
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found. `--dry-run` runs the same code on the CPU.")
    return CudaDevice()


def gpu_packages() -> list[str]:
    """Versions worth recording that are installed here."""
    wanted = ("torch", "transformers", "accelerate", "triton")
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    return [name for name in wanted if name in installed]
