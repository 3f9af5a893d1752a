"""Files to text: one reader per kind of file, each giving a `Document` of citable sections.

Nothing here knows models or tokens; torch is never imported.
"""

from app.documents.document import Document, DocumentKind, LeftOut, Section
from app.documents.read import read
from app.documents.receipt import receipt

__all__ = ["Document", "DocumentKind", "LeftOut", "Section", "read", "receipt"]
