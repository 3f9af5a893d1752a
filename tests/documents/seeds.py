"""One sound file of each kind, to be damaged."""

from __future__ import annotations

import gzip

from tests.documents import make
from tests.documents.bodies import body
from tests.documents.opendocument import ODP, ODT

SEEDS = {
    "a.pdf": make.pdf([body(n) for n in range(3)]),
    "a.docx": make.word(),
    "a.pptx": make.slides(),
    "a.xlsx": make.sheets(),
    "a.odt": make.opendocument("text", ODT),
    "a.odp": make.opendocument("presentation", ODP),
    "a.epub": make.book(),
    "a.html": b"<html><h1>a</h1><table><tr><td>b</table><p>c &amp; d</html>",
    "a.ipynb": make.notebook(),
    "a.eml": make.MAIL,
    "a.zip": make.zipped({"p/a.py": "x = 1", "p/.gitignore": "*.c\n[", "p/b.docx": make.word()}),
    "a.tar.gz": make.tarred({"p/a.py": b"x = 1", "p/b.ipynb": make.notebook()}),
    "a.log.gz": gzip.compress(b"started\n"),
    "a.txt": "Größe, 日本 🙂\n".encode() * 20,
}
