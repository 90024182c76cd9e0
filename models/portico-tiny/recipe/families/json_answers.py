"""Facts in, bare JSON out: under a schema in the prompt, with named keys, or forced by the engine alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recipe import words
from recipe.families.framing import courtesy, opening, system_line
from recipe.families.json_facts import BY_SCHEMA, case, has_keys, object_schema, strict_schema
from recipe.families.json_person import person
from recipe.sample import Draw, Entry, Message, Sample, says_json, system, user


def before(d: Draw) -> list[Message]:
    """An opening that fits where there are tools or JSON is wanted."""
    return opening(d, talk=0.12, make=courtesy)


def filled(form: str, text: str, keys: str = "") -> str:
    """The form filled in; a text of several lines or with bullets starts on a line of its own."""
    if "\n" in text or text[0] in "-*":
        form = form.replace(" {t}", "\n{t}")
    return form.format(k=keys, t=text)


# ---- JSON with a schema


def with_schema(d: Draw) -> Sample:
    """The prompt holds a JSON schema and facts; the answer has the schema's keys in the schema's order."""
    asked = case(d)
    schema = object_schema(d, asked.facts)
    instruction = d.wording(BY_SCHEMA).format(
        s=json.dumps(schema, ensure_ascii=False, indent=2 if d.chance(0.06) else None)
    )
    lead = d.choice(
        ["{t}"] * 4
        + ["Text: {t}", "Extract the data: {t}", "Facts: {t}", "Data:\n{t}", "Here are the facts: {t}"]
    )
    if d.chance(0.5):
        said = f"{system_line(d)} {instruction}" if d.chance(0.2) else instruction
        messages = [system(said), user(filled(lead, asked.text))]
    else:
        gap = d.choice(["\n\n", "\n"])
        parts = [filled(lead, asked.text), instruction]
        messages = [*before(d), user(gap.join(parts if d.chance(0.5) else parts[::-1]))]
    return Sample([*messages, says_json(asked.answer)], schema=schema, form=has_keys(asked.keys))


# ---- JSON without a schema

_BY_KEYS = [
    f"{start} {link} {{k}}{end}"
    for start in [
        "Give JSON",
        "Answer with JSON",
        "Return JSON",
        "Write JSON",
        "Please give JSON",
        "Make JSON",
        "Give me JSON",
        "Return a JSON object",
        "Make a JSON object",
        "Reply with JSON",
        "Answer only with JSON",
    ]
    for link in ["with", "with the keys", "with the fields", "that has the keys"]
    for end in [" for: {t}", ": {t}", ":\n{t}", " from this text: {t}"]
] + [
    "Extract {k} as JSON: {t}",
    "Extract {k} as JSON.\n{t}",
    "Extract {k} as JSON from: {t}",
    "Give {k} as JSON: {t}",
    "{t}\nGive JSON with {k}.",
    "{t}\n\nAnswer with JSON with the keys {k}.",
    "{t} Give this as JSON with {k}.",
    "{t}\nExtract {k} as JSON.",
    "Can you give me JSON with {k}? {t}",
    "Can you extract {k} as JSON? {t}",
    "Turn this into JSON with {k}: {t}",
    "JSON with {k}: {t}",
    "Keys: {k}. Give JSON for: {t}",
    "Text: {t}\nGive JSON with the keys {k}.",
    "{t}\nMake a JSON object with {k}.",
    "I want JSON with {k}: {t}",
    "I need {k} as JSON.\n\n{t}",
    "JSON, keys {k}: {t}",
    "Write {k} as JSON: {t}",
    "Return {k} as JSON:\n{t}",
    # never trained:
    "Make JSON from this text with the keys {k}: {t}",
    "I want {k} as a JSON object: {t}",
]


def named_keys(d: Draw, keys: Sequence[str]) -> str:
    style = d.integer(0, 5)
    if style == 0:
        return ", ".join(f'"{key}"' for key in keys)
    if style == 1:
        return ", ".join(keys)
    if style == 2:
        return ", ".join(f"`{key}`" for key in keys)
    return words.listing(d, keys)


def with_keys(d: Draw) -> Sample:
    """The prompt names the keys; numbers stay numbers, everything else is a string."""
    asked = case(d, plain=True)
    request = filled(d.wording(_BY_KEYS), asked.text, named_keys(d, asked.keys))
    return Sample(
        [*before(d), user(request), says_json(asked.answer)],
        schema=strict_schema(asked.facts),
        form=has_keys(asked.keys),
    )


# ---- JSON by the API's schema: the prompt says nothing of JSON

_BY_API = [
    f"{start} {{k}}{end}"
    for start in [
        "Extract",
        "Extract the",
        "Please extract",
        "Please extract the",
        "Can you extract",
        "Now extract the",
        "I want you to extract",
        "Extract the fields",
        "Extract the values of",
        "extract",
    ]
    for end in [
        ": {t}",
        ":\n{t}",
        " from: {t}",
        " from this text: {t}",
        " from this: {t}",
        " of: {t}",
        "\n\n{t}",
    ]
] + [
    "{t}\nExtract {k}.",
    "{t}\n\nExtract the {k}.",
    "{t} Extract {k}.",
    "{t}\nPlease extract {k}.",
    "Fields: {k}\nText: {t}",
    "Fields: {k}. Text: {t}",
    "Text: {t}\nFields: {k}",
    "Text: {t}\nExtract {k}.",
    "Fill in the fields {k}: {t}",
    "Fill in the fields {k}. Text: {t}",
    "Fill in these: {k}. Text: {t}",
    "Please fill in these fields: {k}.\n{t}",
    "I want you to fill in {k}: {t}",
    "I want the fields {k}: {t}",
    "I want you to find {k}: {t}",
    "Fill in {k}: {t}",
    "Fill in {k} from this text:\n{t}",
    # never trained:
    "Fill in these fields: {k}. Text: {t}",
    "I want you to extract the fields {k}: {t}",
]


def by_api(d: Draw) -> Sample:
    """As with `response_format`: the schema binds the engine and the prompt only says which facts."""
    asked = case(d, plain=True)
    keys = ", ".join(asked.keys) if d.chance(0.4) else words.listing(d, asked.keys)
    request = filled(d.wording(_BY_API), asked.text, keys)
    return Sample(
        [*before(d), user(request), says_json(asked.answer)],
        schema=strict_schema(asked.facts),
        form=has_keys(asked.keys),
    )


ENTRIES: list[Entry] = [
    Entry("JSON with a schema", with_schema, bar=0.95, share=6),
    Entry("JSON without a schema", with_keys, bar=0.95, share=2.2),
    Entry("JSON by the API's schema", by_api, bar=0.95, share=3),
    Entry("JSON: a known person", person, bar=0.95, share=1.4),
]
