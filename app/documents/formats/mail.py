"""E-mails (.eml): the header people read, then the text; attachments are named, not read."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import MIMEPart

from app.documents.document import LeftOut, Section
from app.documents.encoding import clean, decode_text
from app.documents.formats.html import html_to_text
from app.documents.parts import Begun, Done, Job, Opened, Part, Refused

_HEADERS = ("From", "To", "Cc", "Date", "Subject")


def read_mail(job: Job) -> Iterator[Part]:
    """Yields one section."""
    with job.path.open("rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    try:
        headers = [f"{name}: {message[name]}" for name in _HEADERS if message[name]]
        body = message.get_body(("plain", "html"))
        texts = [] if body is None else [_text(body)]
        attached = []
        for part in message.iter_attachments():
            # Mailing lists and some programs continue the text behind a picture.
            if body is not None and _is_more_text(part):
                texts.append(_text(part))
            else:
                attached.append(part.get_filename() or f"unnamed {part.get_content_type()}")
        text = "\n\n".join(one.strip("\r\n") for one in texts)
    except Exception as fault:  # noqa: BLE001
        # The parser of headers raises whatever its pieces meet.
        yield Refused(
            f"{job.name} cannot be read as an e-mail: it is damaged ({type(fault).__name__}). "
            "Save it again in the mail program, or copy its text."
        )
        return
    if not headers and not text.strip():
        yield Refused(f"{job.name} is no e-mail: it has neither header nor text.")
        return
    yield Opened("mail", 1)
    if not job.start:
        for name in attached:
            yield LeftOut(name, "attachment; save it and drop it by itself")
    for _ in job.units(1):
        yield Begun(0, job.name)
        yield Section(job.name, clean("\n".join(headers) + "\n\n" + text).strip())
        yield Done(0)


def _is_more_text(part: MIMEPart) -> bool:
    is_attached = part.get_content_disposition() == "attachment" or part.get_filename() is not None
    return part.get_content_type() in ("text/plain", "text/html") and not is_attached


def _text(body: MIMEPart) -> str:
    data = body.get_payload(decode=True)
    assert isinstance(data, bytes), "a body is a leaf"
    try:
        text = data.decode(body.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):
        text = decode_text(data) or ""
    return html_to_text(text) if body.get_content_subtype() == "html" else text
