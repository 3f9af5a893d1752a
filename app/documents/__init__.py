"""Files to text: one reader per kind of file, each giving a `Document` of citable sections.

Nothing here knows models or tokens; torch is never imported.
"""

from app.documents.document import Document, DocumentKind, LeftOut, Section
from app.documents.folder import read_entries
from app.documents.read import read
from app.documents.receipt import receipt
from app.documents.selection import Entry

__all__ = [
    "Document",
    "DocumentKind",
    "Entry",
    "LeftOut",
    "Section",
    "read",
    "read_entries",
    "receipt",
]
