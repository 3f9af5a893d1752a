"""The viewer: a page or file beside the chat, with the cited passage marked."""

from __future__ import annotations

from app.ui.component import markup


def viewer_panel() -> None:
    """`#viewer`, filled by `viewer.js`."""
    markup("viewer", _VIEWER)


_VIEWER = """<section class="card" role="dialog" aria-label="Viewer" tabindex="-1">
<div class="head"><div class="names"><b class="label"></b><span class="document"></span></div>
<button type="button" data-act="close" title="Close (Esc)" aria-label="Close">&times;</button></div>
<div class="bar-tools"><button type="button" data-act="before" title="Previous part"
aria-label="Previous part">&lsaquo;</button><input type="text" class="goto" inputmode="numeric"
aria-label="Go to part number"><span class="total"></span><button type="button" data-act="next"
title="Next part" aria-label="Next part">&rsaquo;</button><span class="grow"></span>
<span role="tablist" aria-label="What is shown"><button type="button" role="tab" data-show="page">
Page</button><button type="button" role="tab" data-show="text">What the model sees</button></span>
<span class="zoom"><button type="button" data-act="smaller" title="Smaller" aria-label="Smaller">
&minus;</button><button type="button" data-act="larger" title="Larger" aria-label="Larger">
+</button>
</span></div><p class="doubt bad"></p>
<div class="sheet" tabindex="0"><div class="page"><img alt=""><div class="places"></div></div>
<pre class="text"></pre></div>
<div class="foot"><label class="extractor">Extract with
<select aria-label="Extractor for this page">
<option value="pdfium">PDFium</option><option value="pypdf">pypdf</option>
<option value="ocr">OCR</option></select></label><span class="grow"></span>
<button type="button" data-act="choice"></button></div></section>"""
