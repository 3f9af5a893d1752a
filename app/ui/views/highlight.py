"""Source code in colours for the viewer: runs of text with a kind each, never HTML."""

from __future__ import annotations

from itertools import groupby

# Longer files are shown plain: a browser has enough to do with their text.
_CHARACTERS_MAX = 200_000


def highlighted(text: str, name: str, language: str) -> list[tuple[str, str]] | None:
    """Kind and text of each run, by Pygments; None where there is no language to it.

    Args:
        text: the file's text.
        name: the file's, to recognise its language.
        language: as the reader has named it; "" if it is none.

    Returns:
        Kinds are "comment", "keyword", "string", "number", "name" and "" for all else.
    """
    if not language or len(text) > _CHARACTERS_MAX:
        return None
    from pygments.lexers import get_lexer_for_filename
    from pygments.token import Comment, Keyword, Name, Number, String
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
    kinds = (
        (Comment, "comment"),
        (Keyword, "keyword"),
        (String, "string"),
        (Number, "number"),
        (Name.Function, "name"),
        (Name.Class, "name"),
    )

    def kind(pair: tuple[object, str]) -> str:
        return next((name for token, name in kinds if pair[0] in token), "")

    # Unprocessed: the runs together are the text as it is, its line ends included.
    tokens = ((token, value) for _, token, value in lexer.get_tokens_unprocessed(text))
    return [(name, "".join(value for _, value in run)) for name, run in groupby(tokens, kind)]
