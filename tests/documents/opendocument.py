"""OpenDocument files, made up."""

from __future__ import annotations

ODT = (
    '<text:h text:outline-level="1">Harbour</text:h><text:p>Dawn<text:s text:c="2"/>comes'
    "<text:tab/>slowly.</text:p><text:list><text:list-item><text:p>ropes</text:p></text:list-item></text:list>"
    "<table:table><table:table-row><table:table-cell><text:p>Ship</text:p></table:table-cell>"
    "<table:table-cell><text:p>Tons</text:p></table:table-cell></table:table-row></table:table>"
    '<text:h text:outline-level="1">Weather</text:h><text:p>Wind<text:note><text:note-body><text:p>'
    "strong</text:p></text:note-body></text:note>.</text:p>"
)
ODP = (
    '<draw:page draw:name="one"><draw:frame><draw:text-box><text:p>Tides</text:p></draw:text-box>'
    "</draw:frame><presentation:notes><draw:frame><draw:text-box><text:p>Moon</text:p>"
    "</draw:text-box></draw:frame></presentation:notes></draw:page>"
)
