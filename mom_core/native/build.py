"""Compiles the C kernels on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import filelock
import torch

from mom_core.files import cache_folder

_FOLDER = Path(__file__).parent
_SOURCES = tuple(sorted(_FOLDER.glob("*.c")))
_HEADERS = tuple(sorted(_FOLDER.glob("*.h")))
_FLAGS = (
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-funroll-loops",
    "-ffast-math",
    "-fno-finite-math-only",
    "-fPIC",
    "-fopenmp",
)
_COMPILE_SECONDS = 120


def compiled_library() -> Path:
    """The compiled library in the user's cache folder; compiles it if it is missing or out of date.

    Raises:
        OSError: no compiler was found, or the folder cannot be written.
        subprocess.SubprocessError: the compilation failed or took too long.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler")
    omp = _torch_openmp()
    key = hashlib.sha256(
        b"\0".join(
            [
                *(source.read_bytes() for source in (*_SOURCES, *_HEADERS)),
                *(" ".join(_FLAGS).encode(), _cpu().encode(), str(omp).encode()),
            ]
        )
    ).hexdigest()[:20]
    folder = cache_folder() / "native"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"kernels-{key}.so"
    if library.exists():
        return library
    with filelock.FileLock(folder / f"kernels-{key}.lock"), tempfile.TemporaryDirectory() as work:
        if not library.exists():
            made = Path(work) / "kernels.so"
            objects = [str(Path(work) / f"{source.stem}.o") for source in _SOURCES]
            for source, target in zip(_SOURCES, objects, strict=True):
                _run([compiler, *_FLAGS, "-c", str(source), "-o", target])
            # Link torch's own OpenMP, so that there is one pool of threads and not two.
            threads = "-fopenmp" if omp is None else str(omp)
            _run([compiler, "-shared", *objects, threads, "-lm", "-o", str(made)])
            # Replace atomically: another process must never load half a file.
            staged = library.with_suffix(f".{os.getpid()}")
            shutil.copy(made, staged)
            staged.replace(library)
    return library


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)


def _torch_openmp() -> Path | None:
    """The OpenMP library bundled with torch, or None if torch uses the system's."""
    folder = Path(torch.__file__).parent / "lib"
    return next(iter(sorted(folder.glob("libgomp*.so*"))), None)


def _cpu() -> str:
    """This CPU's features, part of the key because machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor() + platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
