"""Files to text: one reader per kind of file, each giving a `Document` of citable sections.

Nothing here knows models or tokens; torch is never imported.
"""

from app.documents.cache import DiskCache
from app.documents.document import UNITS, Chapter, Document, DocumentKind, Health, LeftOut, Section
from app.documents.limits import DEFAULT_LIMITS, Limits, parse_limits
from app.documents.options import DEFAULT_OPTIONS, EXTRACTORS, Extractor, ReadOptions
from app.documents.parsing.read import DocumentLocked, ReadProgress, read, stream
from app.documents.receipt import extent, receipt

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_OPTIONS",
    "EXTRACTORS",
    "UNITS",
    "Chapter",
    "DiskCache",
    "Document",
    "DocumentKind",
    "DocumentLocked",
    "Extractor",
    "Health",
    "LeftOut",
    "Limits",
    "ReadOptions",
    "ReadProgress",
    "Section",
    "extent",
    "parse_limits",
    "read",
    "receipt",
    "stream",
]
