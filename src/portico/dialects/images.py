"""Images as callers send them: data URIs, data URIs without a type, bare base64, links."""

from __future__ import annotations

import binascii

from portico.errors import InvalidRequest


def media_type(encoded: str) -> str | None:
    """image/png, jpeg, webp or gif by the first bytes of base64 text; None for anything else."""
    begin = encoded[:32]
    try:
        head = binascii.a2b_base64(begin[: len(begin) // 4 * 4])  # padding may be missing
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def data_uri(encoded: str, param: str) -> str:
    """`data:image/png;base64,...` of base64 text, the type read from its first bytes."""
    kind = media_type(encoded)
    if kind is None:
        raise InvalidRequest(
            f"Invalid {param!r}: not the base64 text of a PNG, JPEG, WebP or GIF image.", param=param
        )
    return f"data:{kind};base64,{encoded}"


def url(sent: str, param: str, *, links: bool) -> str:
    """What a caller sent, as a URL that an engine takes. `links`: http and https may pass. A file on the
    server's disk never may: its content would come back in the answer."""
    if sent.startswith("data:"):
        head, comma, encoded = sent.partition(",")
        if not comma:
            raise InvalidRequest(f"Invalid {param!r}: a data URI without a comma.", param=param)
        if head.removeprefix("data:").startswith("image/"):
            return sent
        return data_uri(encoded, param)  # `data:;base64,`: the type is missing
    if sent.startswith(("http://", "https://")):
        if links:
            return sent
        raise InvalidRequest(f"Invalid {param!r}: links are not fetched, send the image itself.", param=param)
    return data_uri(sent, param)


def encoded(sent: str) -> str:
    """The base64 text of a data URI; anything else as it is."""
    return sent.partition(",")[2] if sent.startswith("data:") else sent
