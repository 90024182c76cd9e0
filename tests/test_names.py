"""Names in Ollama's grammar, and which model a name means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import InvalidRequest, ModelNotFound
from portico.names import HUB_HOSTS, Name, canonical, nearest, parse, resolve, same

LETTERS = "abcXYZ019_"
part = st.text(LETTERS + ".-", min_size=1, max_size=20).filter(lambda text: text[0] in LETTERS)
names = st.builds(
    Name,
    model=part,
    tag=part,
    namespace=part.filter(lambda text: "." not in text) | st.just("library"),
    host=part.filter(lambda text: text.casefold() not in HUB_HOSTS) | st.just("registry.ollama.ai"),
)


@given(names)
def test_what_is_shown_is_read_back(name: Name) -> None:
    assert parse(str(name)) == name


@given(names)
def test_the_shown_form_is_stable_and_has_a_tag(name: Name) -> None:
    assert canonical(str(name)) == str(name)
    assert ":" in str(name)


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse(text)
    except InvalidRequest as error:
        assert error.param == "model"
        assert canonical(text) == text
    else:
        assert parse(str(name)) == name


@given(st.text(alphabet="ab/:.-_ @", max_size=30))
def test_text_of_the_grammars_own_signs_is_a_name_or_refused(text: str) -> None:
    try:
        assert parse(str(parse(text))) == parse(text)
    except InvalidRequest:
        pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("llama3", "llama3:latest"),
        ("llama3:8b", "llama3:8b"),
        ("library/llama3", "llama3:latest"),
        ("registry.ollama.ai/library/llama3:8b", "llama3:8b"),
        ("https://registry.ollama.ai/library/llama3", "llama3:latest"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct:latest"),
        ("hf.co/org/Repo-GGUF:Q4_K_M", "org/Repo-GGUF:Q4_K_M"),
        ("huggingface.co/org/repo", "org/repo:latest"),
        ("example.com:5000/team/model:1", "example.com:5000/team/model:1"),
    ],
)
def test_the_shortest_form_is_shown_with_its_tag(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        ":a",
        "/a",
        "a/",
        "a//b",
        "-a",
        ".a",
        "a b",
        "a:b:c",
        "a.b/c",
        "a/b/c/d",
        "é",
        "a\n",
        "a" * 97,
        "a:" + "b" * 81,
        "../../etc/passwd",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid model name"):
        parse(text)


def test_only_a_name_with_an_owner_may_be_a_repository() -> None:
    assert parse("org/repo:q8_0").repository == "org/repo"
    assert parse("hf.co/org/repo").repository == "org/repo"
    assert parse("llama3").repository is None
    assert parse("library/llama3").repository is None
    assert parse("example.com/org/repo").repository is None


KNOWN = ("portico-tiny:latest", "llama3.2:1b", "Qwen/Qwen3-8B:latest", "weird id with spaces")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("portico-tiny:latest", "portico-tiny:latest"),
        ("portico-tiny", "portico-tiny:latest"),
        ("PORTICO-Tiny", "portico-tiny:latest"),
        ("LLAMA3.2:1B", "llama3.2:1b"),
        ("library/llama3.2:1b", "llama3.2:1b"),
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B:latest"),
        ("hf.co/Qwen/Qwen3-8B:latest", "Qwen/Qwen3-8B:latest"),
        ("weird id with spaces", "weird id with spaces"),
        ("Weird ID with spaces", "weird id with spaces"),
        ("default", "portico-tiny:latest"),
        ("auto", "portico-tiny:latest"),
        ("AUTO:latest", "portico-tiny:latest"),
        ("gpt-4o-mini", "llama3.2:1b"),
        ("GPT-4o-mini:latest", "llama3.2:1b"),
        ("facebook/opt-125m", "portico-tiny:latest"),
    ],
)
def test_a_name_is_resolved_in_all_its_forms(asked: str, found: str) -> None:
    aliases = {"gpt-4o-mini": "llama3.2:1b", "facebook/opt-125m": "portico-tiny"}
    assert resolve(asked, KNOWN, aliases=aliases) == found


def test_a_model_called_default_is_meant_before_any_other() -> None:
    assert resolve("default", ["a:latest", "default:latest"]) == "default:latest"
    assert resolve("auto", ["a:latest", "b:latest"], default="b") == "b:latest"


def test_an_id_is_preferred_to_an_alias_of_the_same_name() -> None:
    assert resolve("a:latest", ["a:latest", "b:latest"], aliases={"a:latest": "b"}) == "a:latest"
    # To the letter is meant more than in another form.
    assert resolve("A", ["a:latest", "b:latest"], aliases={"A": "b"}) == "b:latest"


@pytest.mark.parametrize("asked", ["nothing-like-it", "portico-tiny:8b", "llama3.2", "", "default"])
def test_what_is_not_there_is_not_found(asked: str) -> None:
    with pytest.raises(ModelNotFound):
        resolve(asked, () if asked == "default" else KNOWN)


def test_an_alias_of_an_alias_leads_nowhere() -> None:
    with pytest.raises(ModelNotFound):
        resolve("a", KNOWN, aliases={"a": "b", "b": "portico-tiny"})


def test_the_nearest_names_are_told() -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve("lama3.2:1b", KNOWN)
    assert caught.value.nearest == ("llama3.2:1b",)
    assert "Nearest: llama3.2:1b" in caught.value.message
    assert nearest("foo", KNOWN) == ()
    assert nearest("llama3.2", KNOWN)[0] == "llama3.2:1b"


@given(names, st.lists(names, max_size=5))
def test_a_known_name_is_always_found_in_any_case(name: Name, others: list[Name]) -> None:
    known = [str(name), *(str(other) for other in others if other.key != name.key)]
    assert resolve(str(name).swapcase(), known) == str(name)
    assert same(str(name).upper(), str(name).lower())


@given(st.text(max_size=3000), st.lists(st.text(max_size=50), max_size=20))
def test_resolving_anything_ends_in_a_name_or_model_not_found(asked: str, known: list[str]) -> None:
    try:
        assert resolve(asked, known) in known
    except ModelNotFound as error:
        assert set(error.nearest) <= set(known)
