"""Formulas of office files as a line of text: "E=mc^2", "a_(n+1)", "1/(x+y)", "√(2)"."""

from __future__ import annotations

from typing import Any

OMML = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MARKS = {"sup": "^", "sub": "_", "den": "/", "num": "", "msup": "^", "msub": "_"}


def word_formula(node: Any) -> str:
    """The text of a formula of Word (OMML), or of a part of one."""
    name = _name(node)
    if name == "t":
        return node.text or ""
    inside = [word_formula(child) for child in node]
    text = "".join(inside)
    if name in ("sup", "sub", "num", "den"):
        return _MARKS[name] + _grouped(text)
    if name == "rad":
        return f"√({text})"
    if name == "nary":
        return _property(node, "chr", "∫") + text
    if name == "d":
        parts = [piece for piece in inside if piece]
        return _property(node, "begChr", "(") + ",".join(parts) + _property(node, "endChr", ")")
    return text


def math_formula(node: Any) -> str:
    """The text of a formula in MathML, without what annotates it."""
    name = _name(node)
    if not name or name.startswith("annotation"):
        return ""
    parts = [math_formula(child) for child in node]
    match name, parts:
        case ("msup" | "msub", [base, small]):
            return base + _MARKS[name] + _grouped(small)
        case ("msubsup" | "munderover", [base, low, high]):
            return f"{base}_{_grouped(low)}^{_grouped(high)}"
        case "mfrac", [above, below]:
            return f"{_grouped(above)}/{_grouped(below)}"
        case "msqrt", _:
            return f"√({''.join(parts)})"
    return (node.text or "").strip() + "".join(parts)


def _grouped(text: str) -> str:
    return text if len(text) <= 1 else f"({text})"


def _property(node: Any, name: str, default: str) -> str:
    """A character that a part of a formula is drawn with; an empty one is none."""
    found = node.find(f"{OMML}{_name(node)}Pr/{OMML}{name}")
    return default if found is None else str(found.get(f"{OMML}val", default))


def _name(node: Any) -> str:
    """Its local name; comments have none."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
