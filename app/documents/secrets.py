"""Probable secrets, by a file's name and by what it says. They are never read unasked."""

from __future__ import annotations

import fnmatch
import re

from app.documents.document import Document, LeftOut, Section

_NAMES = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    ".npmrc",
    "_netrc",
    ".pgpass",
    ".htpasswd",
    ".git-credentials",
    ".dockercfg",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "credentials.json",
    "client_secret*.json",
    "secrets.y*ml",
    "*.tfstate",
)
# In one, as every file of a large tree is asked.
_NAME = re.compile("|".join(map(fnmatch.translate, _NAMES)))
# Templates that are made to be published.
_HARMLESS = re.compile(r"\.(example|sample|template|dist|defaults?|schema)$|\.pub$", re.IGNORECASE)
# The kind; words of which a secret has one, for most texts have none and a search for plain words
# takes a fraction of the pattern's time; the pattern.
_CONTENTS = (
    (
        "private key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr])+[\w+/=:-]"
        ),
    ),
    ("AWS key", ("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    (
        "AWS key",
        ("secret_access_key", "SECRET_ACCESS_KEY"),
        re.compile(
            r"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[\"']?\s{0,9}[:=]\s{0,9}[\"']?"
            r"[\w/+]{40}(?![\w/+])"
        ),
    ),
    ("web token", ("eyJ",), re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}")),
    (
        # Not a placeholder such as user:${PASSWORD}@ or user:password@. It begins with what is
        # rare, so that the search is quick; the end of the scheme is looked for behind it.
        "password in an address",
        ("://",),
        re.compile(
            r"://(?<=[A-Za-z0-9+.-]{2}://)[^\s/:@'\"<>]{1,100}:"
            r"(?![${<%*\[]|(?i:password|passwd|pass|pwd|secret|x+)@)[^\s/@'\"<>]{3,200}@[\w.\[-]"
        ),
    ),
    (
        "GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})\b"),
    ),
    ("GitLab token", ("glpat-",), re.compile(r"\bglpat-[\w-]{20}\b")),
    ("Slack token", ("xox",), re.compile(r"\bxox[abprs]-\d{8,}-[\w-]{12,}")),
    (
        "API key",
        ("sk-", "AIza", "hf_"),
        re.compile(r"\b(?:sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|AIza[\w-]{35}|hf_[A-Za-z]{34})\b"),
    ),
    ("Stripe key", ("k_live_",), re.compile(r"\b[sr]k_live_[A-Za-z0-9]{20,}\b")),
    (
        "package index token",
        ("pypi-AgEI", "npm_"),
        re.compile(r"\b(?:pypi-AgEI[\w-]{50,}|npm_[A-Za-z0-9]{36})\b"),
    ),
)


def secret_by_name(path: str) -> str | None:
    """Why a file with this name or path probably holds secrets, None if it does not."""
    low = path.rpartition("/")[2].lower()
    if _HARMLESS.search(low):
        return None
    if _NAME.match(low):
        return "probable secret (by its name)"
    return None


def secret_in_text(text: str) -> str | None:
    """Which kind of secret the text probably holds, None if none is seen."""
    for kind, words, pattern in _CONTENTS:
        if any(word in text for word in words) and pattern.search(text):
            return f"probable secret ({kind})"
    return None


def secret_in_section(document: Document, section: Section) -> str | None:
    """Why a section probably holds secrets, by the name of its file or by its text."""
    return secret_by_name(section.path or document.name) or secret_in_text(section.text)


def holds_secret(document: Document) -> bool:
    """Whether what is read of a document probably holds a secret; such are kept nowhere."""
    return any(secret_in_section(document, section) for section in document.sections)


def is_secret(entry: LeftOut) -> bool:
    """Whether a file was left out for a secret, or holds one whatever it was left out for."""
    return "secret" in entry.reason or (
        entry.text is not None and secret_in_text(entry.text) is not None
    )
