"""Probable secrets, by a file's name and by what it says. They are never read unasked."""

from __future__ import annotations

import fnmatch
import re

_NAMES = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
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
# Templates that are made to be published.
_HARMLESS = re.compile(r"\.(example|sample|template|dist|defaults?|schema)$|\.pub$", re.IGNORECASE)
_CONTENTS = (
    (
        "private key",
        re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----\s+[\w+/=:-]"),
    ),
    ("AWS key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    ("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})\b")),
    ("GitLab token", re.compile(r"\bglpat-[\w-]{20}\b")),
    ("Slack token", re.compile(r"\bxox[abprs]-\d{8,}-[\w-]{12,}")),
    (
        "API key",
        re.compile(r"\b(?:sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|AIza[\w-]{35}|hf_[A-Za-z]{34})\b"),
    ),
    ("Stripe key", re.compile(r"\b[sr]k_live_[A-Za-z0-9]{20,}\b")),
    ("package index token", re.compile(r"\b(?:pypi-AgEI[\w-]{50,}|npm_[A-Za-z0-9]{36})\b")),
)


def secret_by_name(name: str) -> str | None:
    """Why a file of this name probably holds secrets, None if it does not."""
    low = name.lower()
    if _HARMLESS.search(low):
        return None
    if any(fnmatch.fnmatchcase(low, pattern) for pattern in _NAMES):
        return "probable secret (by its name)"
    return None


def secret_in_text(text: str) -> str | None:
    """Which kind of secret the text probably holds, None if none is seen."""
    for kind, pattern in _CONTENTS:
        if pattern.search(text):
            return f"probable secret ({kind})"
    return None
