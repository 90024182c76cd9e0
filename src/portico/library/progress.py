"""What a pull or create says while it goes on."""

from __future__ import annotations

from portico.messages import Value


class Progress(Value, frozen=True, kw_only=True):
    """One step of a pull, as Ollama's clients know it.

    `digest` (`sha256:` and 64 hex digits) names the file that `total` and `completed` count bytes of; a file
    without one (small ones have no sha256) is told apart by its `status`. Of one file, `completed` never falls.
    All files are announced before the first byte, so that the sum of `total` is the size of the whole pull.
    """

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


MANIFEST = Progress(status="pulling manifest")
VERIFYING = Progress(status="verifying sha256 digest")
WRITING = Progress(status="writing manifest")
SUCCESS = Progress(status="success")
