"""Every error a person can cause, as a sentence.

MomError
├── InvalidSetting      a setting has a value that is not allowed
├── ContextTooLong      the prompt and the answer do not fit the model's context window
├── ModelUnavailable    the model's files cannot be found, fetched or read
├── UnsupportedModel    the model was loaded, but this engine cannot run it exactly
├── OutOfMemory         the device or the host has no room for the run
├── SnapshotUnusable    a saved context is damaged, or was made with something else
└── DocumentError       a document cannot be read (raised by `app.documents`)

Each message says what was found, what is allowed and what to do. The page and the command line
print `str(error)` and nothing else, so a message must stand on its own.
"""


class MomError(Exception):
    """Base of all errors that are meant to be read by the person using the program."""


class InvalidSetting(MomError):
    """A setting has a value that is not allowed."""


class ContextTooLong(MomError):
    """The prompt, or the prompt and the answer asked for, exceed the context window."""


class ModelUnavailable(MomError):
    """The model's files cannot be found, fetched or read."""


class UnsupportedModel(MomError):
    """The model cannot be run exactly by this engine."""


class OutOfMemory(MomError):
    """There is no room on the device or the host for what the run needs."""


class SnapshotUnusable(MomError):
    """A saved context cannot be used: damaged, of another version, or of another model."""


class DocumentError(MomError):
    """A document cannot be read."""
