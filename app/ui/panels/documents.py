"""Where documents come in, and the list of them."""

from __future__ import annotations

from app.ui.component import markup


def documents_panel() -> None:
    """`#drop` and `#documents`, filled by `documents.js` and `upload.js`."""
    markup("drop", _DROP)
    markup("documents", _DOCUMENTS)


_DROP = """<label class="drop-area" tabindex="0">
<input type="file" multiple aria-label="Choose documents">
<b>Drop documents, code folders, archives</b>
<span>or click to choose files</span><span class="upload" role="status"></span></label>
<form class="open-path"><input type="text" placeholder="or open a path on this machine"
aria-label="A path on this machine"></form>"""

_DOCUMENTS = """<h2>Documents</h2><div class="total"></div><div class="share"><i></i></div>
<div class="advice" hidden><p></p><label><input type="checkbox" class="fit"> When there is too much,
read only the parts that match the question best (BM25)</label></div>
<ul class="rows"></ul><p class="none">No documents yet. Without one, this is a plain chat.</p>"""
