"""Names of models, in Ollama's grammar: `[host/][namespace/]model[:tag]`.

What is left out means `registry.ollama.ai/library/...:latest`. Names are compared without regard to case; the
form that is shown is the shortest one, with its tag. A hub repository is `namespace/model`; `hf.co/` and
`huggingface.co/` before it name the same thing, because that is where models come from anyway.

Nothing here knows which models exist: `resolve` is told.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from portico.errors import InvalidRequest, ModelNotFound
from portico.messages import Value

HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
HUB_HOSTS = frozenset({"hf.co", "huggingface.co", "www.huggingface.co"})
ANY = frozenset({"default", "auto"})
"""Names that mean: the model that is there."""

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
# Ollama stops at 80; the hub's repositories have up to 96 characters and must have a name here too.
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


class Name(Value, frozen=True, kw_only=True):
    model: str
    tag: str = TAG
    namespace: str = NAMESPACE
    host: str = HOST

    def __str__(self) -> str:
        """The shortest form, with its tag: what listings show."""
        return f"{self.untagged}:{self.tag}"

    @property
    def untagged(self) -> str:
        """The shortest form without its tag."""
        if self.host.casefold() != HOST:
            return f"{self.host}/{self.namespace}/{self.model}"
        if self.namespace.casefold() != NAMESPACE:
            return f"{self.namespace}/{self.model}"
        return self.model

    @property
    def repository(self) -> str | None:
        """`namespace/model` where the name may be one of the hub's, else None."""
        if self.host.casefold() != HOST or self.namespace.casefold() == NAMESPACE:
            return None
        return f"{self.namespace}/{self.model}"

    @property
    def key(self) -> str:
        """Equal for names that mean the same model; for comparing and as a dictionary's key."""
        return str(self).casefold()


def parse(text: str) -> Name:
    """Raises InvalidRequest for what is no name."""
    rest, tag = text, TAG
    if ":" in text.rpartition("/")[2]:
        rest, _, tag = text.rpartition(":")
    host, namespace, model = _split(rest)
    if host.casefold() in HUB_HOSTS:
        host = HOST
    valid = (
        _HOST.fullmatch(host)
        and _NAMESPACE.fullmatch(namespace)
        and _MODEL.fullmatch(model)
        and _TAG.fullmatch(tag)
    )
    if not valid:
        raise InvalidRequest(f"invalid model name {text[:200]!r}", param="model")
    return Name(host=host, namespace=namespace, model=model, tag=tag)


def _split(path: str) -> tuple[str, str, str]:
    rest, slash, model = path.rpartition("/")
    if not slash:
        return HOST, NAMESPACE, model
    host, slash, namespace = rest.rpartition("/")
    if not slash:
        return HOST, namespace, model
    return host.rpartition("://")[2], namespace, model


def canonical(text: str) -> str:
    """The shortest form with its tag; `text` itself where it is no name (an engine's ids may be anything)."""
    try:
        return str(parse(text))
    except InvalidRequest:
        return text


def same(one: str, other: str) -> bool:
    """Whether both mean the same model."""
    return one == other or _key(one) == _key(other)


def resolve(
    asked: str,
    known: Collection[str],
    *,
    aliases: Mapping[str, str] | None = None,
    default: str | None = None,
) -> str:
    """The one of `known` that `asked` means. Raises ModelNotFound with the nearest names.

    (1) one of `known` to the letter; (2) an alias to the letter; (3) the same name in another form: any case,
    with or without `:latest`, with or without `hf.co/`; (4) an alias in another form; (5) `default` or `auto`:
    the model `default` names, else the first of `known`.
    An alias leads to one of `known`, never to another alias.
    """
    if asked in known:  # (1)
        return asked
    aliases = aliases or {}
    if asked in aliases:  # (2)
        return _target(aliases[asked], known)
    key = _key(asked)
    for name in known:  # (3)
        if _key(name) == key:
            return name
    for alias, target in aliases.items():  # (4)
        if _key(alias) == key:
            return _target(target, known)
    if known and key.removesuffix(":" + TAG) in ANY:  # (5)
        return _target(default, known) if default is not None else next(iter(known))
    raise ModelNotFound(model=asked, nearest=nearest(asked, [*known, *aliases]))


def _target(name: str, known: Collection[str]) -> str:
    return resolve(name, known)


def nearest(asked: str, names: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Up to `count` names that somebody who typed `asked` may have meant, the likeliest first."""
    # Cut, because the comparison takes time with the product of the lengths, and `asked` is anybody's text.
    wanted = _stem(asked[:200])
    ranked = sorted(
        ((_likeness(wanted, _stem(name[:200])), name) for name in dict.fromkeys(names)), reverse=True
    )
    return tuple(name for likeness, name in ranked if likeness >= 0.65)[:count]


def _likeness(wanted: str, key: str) -> float:
    """1 for the same; the whole names count, and a little less the models' parts alone."""
    bare = difflib.SequenceMatcher(None, _bare(wanted), _bare(key)).ratio()
    return max(difflib.SequenceMatcher(None, wanted, key).ratio(), bare * 0.95)


def _stem(name: str) -> str:
    return _key(name).removesuffix(":" + TAG)


def _bare(key: str) -> str:
    """The model's part alone: `llama3` for `meta/llama3:8b`."""
    return key.rpartition("/")[2].partition(":")[0]


def _key(text: str) -> str:
    return canonical(text).casefold()
