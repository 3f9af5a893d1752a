"""What the source must not hold, whoever writes it: each failure names file and line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.conftest import ROOT

SOURCES = [path for folder in ("app", "mom_core") for path in sorted((ROOT / folder).rglob("*.py"))]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


def unpickles(path: Path) -> list[str]:
    """Lines that would run what a file says."""
    found = []
    bad = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for node in ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        found += [f"{path}:{node.lineno} {name}" for name in names if name in bad]  # type: ignore[attr-defined]
    for name, call in calls(path):
        is_unsafe = (
            (name.endswith("torch.load") and keyword(call, "weights_only") != "True")
            or keyword(call, "allow_pickle") not in (None, "False")
            or name.endswith("read_pickle")
            or name in ("yaml.load", "yaml.unsafe_load", "eval", "exec")
        )
        if is_unsafe:
            found.append(f"{path}:{call.lineno} {name}")
    return found


def test_there_is_no_pickle_anywhere() -> None:
    assert [line for path in SOURCES for line in unpickles(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_pickle_would_be_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(code)
    assert len(unpickles(path)) == 1


def test_no_code_of_a_model_is_run() -> None:
    for path in SOURCES:
        for name, call in calls(path):
            assert keyword(call, "trust_remote_code") in (None, "False"), (path, call.lineno)
            if name.endswith("ForCausalLM.from_pretrained") and keyword(call, "gguf_file") is None:
                assert keyword(call, "use_safetensors") == "True", (path, call.lineno)


# Parts of Gradio that only lay out, take text and choices, or show text. Others fetch addresses,
# serve files or browse folders (CVE-2026-28416, CVE-2023-51449, #13436, #13437, #13438, #13596).
PARTS = {
    *("Accordion", "Blocks", "Button", "Chatbot", "Column", "Dropdown", "HTML", "Number"),
    *("Radio", "Row", "Slider", "Textbox", "Warning"),
}
FETCHERS = {
    *(
        "requests",
        "httpx",
        "aiohttp",
        "urllib3",
        "ftplib",
        "smtplib",
        "websockets",
        "gradio_client",
    ),
    *("urllib.request", "http.client", "http.server", "xmlrpc"),
}


def opens_gradio(path: Path) -> list[str]:
    """Lines that use a part of Gradio which is not one of ours, or share or serve with it."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gradio":
            names = {alias.name for alias in node.names} - {"Blocks", "Request"}
            if node.module == "gradio" and names:
                found.append(f"{path}:{node.lineno} {names}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            is_part = name.startswith("gr.") and "." not in name[3:]
            is_other = is_part and name[3].isupper() and name[3:] not in PARTS
            opens = [one.arg for one in node.keywords if one.arg in ("share", "allowed_paths")]
            if is_other or name == "gr.load" or opens:
                found.append(f"{path}:{node.lineno} {name} {opens}")
    return found


def fetchers(path: Path) -> list[str]:
    """Lines that import what asks an address for something."""
    found = []
    for node in ast.walk(tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        bad = [one for one in names if one in FETCHERS or one.split(".")[0] in FETCHERS]
        found += [f"{path}:{node.lineno} {name}" for name in bad[:1]]  # type: ignore[attr-defined]
    return found


def test_no_part_of_gradio_reads_files_or_addresses() -> None:
    assert [line for path in SOURCES for line in opens_gradio(path)] == []


def test_no_address_is_fetched_by_code_of_ours() -> None:
    """There is no field for an address, so nothing to be led elsewhere (CVE-2026-45400, 45401)."""
    assert [line for path in SOURCES for line in fetchers(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "gr.Image()",
        "gr.FileExplorer()",
        "gr.load('x')",
        "demo.launch(share=True)",
        "mount_gradio_app(app, demo, path='/', allowed_paths=['/'])",
        "from gradio import File",
    ],
)
def test_another_part_of_gradio_would_be_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(code)
    assert len(opens_gradio(path)) == 1


@pytest.mark.parametrize(
    "code", ["import requests", "from urllib import request", "import urllib.request as ask"]
)
def test_an_address_that_is_fetched_would_be_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(code)
    assert len(fetchers(path)) == 1


def test_the_oldest_gradio_that_is_allowed_has_its_known_holes_closed() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    gradio = next(one for one in map(Requirement, project["dependencies"]) if one.name == "gradio")
    # #13662 was the last of them.
    assert not gradio.specifier.contains("6.20.9")
    assert gradio.specifier.contains("6.21.0")


def path_makers(path: Path) -> list[str]:
    """Lines that make a path of something that is not written there."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            right = node.right
            is_number = isinstance(right, ast.BinOp) and isinstance(right.op, ast.Pow)
            if not isinstance(right, ast.Constant) and not is_number and not _upper(right):
                found.append(f"{path}:{node.lineno} {ast.unparse(node)}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            makes = name in ("Path", "open", "os.path.join", "pathlib.Path", "FileResponse") or (
                name.endswith((".joinpath", ".with_name", ".with_suffix"))
            )
            given = [ast.unparse(one) for one in node.args]
            if (
                makes
                and given != ["__file__"]
                and not (name == "FileResponse" and given == ["_STATIC_FILES[name]"])
            ):
                found.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    return found


def _upper(node: ast.expr) -> bool:
    """A constant such as MANIFEST."""
    return isinstance(node, ast.Name) and node.id.isupper()


def outward() -> list[Path]:
    """Modules that take names from requests: those that know FastAPI, and what they hand on to."""
    handed = (
        "app/workspace/documents.py",
        "app/workspace/uploads.py",
        "app/server/guard.py",
        "app/server/admission.py",
    )
    knows = [path for path in SOURCES if "fastapi" in path.read_text("utf-8")]
    return sorted({*knows, *(ROOT / name for name in handed)})


def test_one_place_makes_paths_of_names_from_outside() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in outward()}
    assert {
        "app/server/routes/router.py",
        "app/server/routes/documents.py",
        "app/workspace/uploads.py",
        "app/workspace/documents.py",
    } <= names
    assert [
        line for path in outward() for line in path_makers(path) if not _of_this_program(line)
    ] == []


def _of_this_program(line: str) -> bool:
    """The folder for uploads, and a page of ours."""
    return "tempfile.mkdtemp(prefix=f'mom-chat-{os.getpid()}-')" in line


@pytest.mark.parametrize(
    "code",
    [
        "folder / name",
        "Path(name)",
        "open(name)",
        "folder.joinpath(name)",
        "x / f'{a}'",
        "x / str(a)",
    ],
)
def test_a_path_made_elsewhere_would_be_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.py"
    path.write_text(code)
    assert len(path_makers(path)) == 1


SWITCHES = """
import os
import app
import app.cli.main
import app.server.serve
import gradio.analytics
import huggingface_hub.constants as hub
assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
assert not gradio.analytics.analytics_enabled()
assert hub.HF_HUB_DISABLE_TELEMETRY
"""


def test_telemetry_is_off_whatever_the_surroundings_say() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SWITCHES],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"GRADIO_ANALYTICS_ENABLED": "True", "HF_HUB_DISABLE_TELEMETRY": "0"},
    )
    assert result.returncode == 0, result.stderr
