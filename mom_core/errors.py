"""Every error that a person can cause, each with a message for that person.

MomError
├── InvalidSetting      a setting has a value that is not allowed
├── ContextTooLong      the prompt and the answer do not fit the model's context window
├── ModelUnavailable    the model's files cannot be found, fetched or read
├── UnsupportedModel    the model was loaded, but this engine cannot run it exactly
├── OutOfMemory         the device, the host or the disk has no room for the run
├── SnapshotUnusable    a saved context is damaged, or belongs to another model or version
└── DocumentError       a document cannot be read (raised by `app.documents`)

Each message says what was found, what is allowed, and what to do. The page and the command line
show `str(error)` and nothing else, so a message must stand on its own.
"""


class MomError(Exception):
    """Base class of all errors whose message is meant for the person using the program."""


class InvalidSetting(MomError):
    """A setting has a value that is not allowed."""


class ContextTooLong(MomError):
    """The prompt, or the prompt and the answer asked for, exceed the context window."""


class ModelUnavailable(MomError):
    """The model's files cannot be found, fetched or read."""


class UnsupportedModel(MomError):
    """The model cannot be run exactly by this engine."""


class OutOfMemory(MomError):
    """The device, the host or the disk has no room for what the run needs."""


class SnapshotUnusable(MomError):
    """A saved context is damaged, or belongs to another version or model."""


class DocumentError(MomError):
    """A document cannot be read."""
