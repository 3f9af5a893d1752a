"""The documents: where to drop them, their list, the context they take, the tree of parts."""

from __future__ import annotations

from app.ui.component import markup


def documents_panel() -> None:
    """`#drop` and `#documents`, filled by `documents.js`, `tree.js`, `meter.js`, `upload.js`."""
    markup("drop", _DROP)
    markup("documents", _DOCUMENTS)


_DROP = """<label class="drop-area" tabindex="0">
<input type="file" multiple aria-label="Choose documents">
<b>Drop documents, code folders or archives</b>
<span>or click to choose files</span><span class="upload" role="status"></span></label>
<form class="open-path"><input type="text" placeholder="or open a path on this machine"
aria-label="A path on this machine"></form>"""

_DOCUMENTS = """<div class="head"><h2>Documents</h2><span class="used"></span></div>
<div id="meter" role="meter" aria-label="Context used" aria-valuemin="0" aria-valuemax="100">
<div class="track"><i class="documents"></i><i class="conversation"></i><i class="answer"></i></div>
<ul class="legend"></ul></div><div class="total"></div>
<div class="advice" hidden><p></p><label><input type="checkbox" class="fit"> If that is too much,
read only the parts that best match the question (BM25)</label></div>
<ul class="rows"></ul><p class="none">No documents yet. Without one, this is a plain chat.</p>
<section class="parts" hidden aria-label="Parts of the documents">
<div class="head"><h3>Parts</h3><span class="about"></span></div>
<form class="range"><input type="text"></form>
<form class="search"><input type="search" placeholder="Search the parts"
aria-label="Search the parts"></form><div class="hits" role="status"></div>
<div id="tree" role="tree" aria-label="Parts of the documents" aria-multiselectable="true">
<div class="rows-in-sight" role="presentation"></div></div></section>"""
