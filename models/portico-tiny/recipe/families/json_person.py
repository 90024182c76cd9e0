"""A person that is known by heart, as typed JSON."""

from __future__ import annotations

import json
from typing import Any

from recipe.families.framing import system_line, word_for_word
from recipe.families.json_facts import BY_SCHEMA, Schema, has_keys
from recipe.sample import Draw, Sample, says_json, system, user


def _person(name: str, profession: str, description: str, *companies: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "profession": profession,
        "description": description,
        "companies": [
            {"name": company, "country": country, "description": text} for company, country, text in companies
        ],
    }


FAMOUS = [
    _person(
        "Albert Einstein",
        "physicist",
        "He made the theory of relativity.",
        ("Swiss Patent Office", "Switzerland", "An office for patents."),
    ),
    _person(
        "Marie Curie",
        "physicist",
        "She found radium and polonium.",
        ("University of Paris", "France", "A university."),
    ),
    _person(
        "Alan Turing",
        "mathematician",
        "He described a machine that computes.",
        ("University of Manchester", "United Kingdom", "A university."),
    ),
    _person(
        "Grace Hopper",
        "computer scientist",
        "She wrote an early compiler.",
        ("US Navy", "USA", "The navy of the USA."),
    ),
    _person(
        "Steve Jobs",
        "businessman",
        "He founded Apple and NeXT.",
        ("Apple", "USA", "A maker of computers."),
        ("NeXT", "USA", "A maker of computers."),
    ),
    _person(
        "Bill Gates",
        "businessman",
        "He founded Microsoft with Paul Allen.",
        ("Microsoft", "USA", "A maker of software."),
    ),
    _person(
        "Henry Ford",
        "businessman",
        "He built cheap cars in large numbers.",
        ("Ford", "USA", "A maker of cars."),
    ),
    _person(
        "Walt Disney", "film maker", "He made Mickey Mouse famous.", ("Disney", "USA", "A maker of films.")
    ),
    _person(
        "Thomas Edison",
        "inventor",
        "He built a light bulb and the phonograph.",
        ("General Electric", "USA", "A maker of electric goods."),
    ),
]

_ABOUT = [
    f"{start} {{n}}{end}"
    for start in [
        "Tell me about",
        "Please tell me about",
        "Can you tell me about",
        "Tell me something about",
        "Give me facts about",
        "Describe",
        "Please describe",
        "Write about",
        "I want to know about",
        "tell me about",
        "I want to hear about",
        "I want the facts about",
        "I need facts about",
    ]
    for end in ["", ".", "!", "?"]
] + [
    "{n}",
    "Who is {n}?",
    "Who was {n}?",
    "The person is {n}.",
    "Person: {n}",
    "Give me the person {n}.",
    "What do you know about {n}?",
    "Describe the person {n}.",
    "Tell me about the person {n}.",
    "Do you know {n}?",
    "Give the facts for {n}.",
    "Who is this person: {n}?",
    "Who was the person {n}?",
    "Who is the person called {n}?",
    "Who is that person, {n}?",
    "Which person is {n}?",
    "Do you know the person {n}?",
    # never trained:
    "I want facts about {n}.",
    "Who is the person {n}?",
]


def person_schema(d: Draw) -> Schema:
    """What a Go struct or a pydantic class becomes, with its descriptions or without."""
    described = d.chance(0.5)

    def text(about: str) -> Schema:
        return {"type": "string", "description": about} if described else {"type": "string"}

    companies: Schema = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": text("Company name"),
                "country": text("Country where company is headquartered"),
                "description": text("Brief description of the company"),
            },
            "required": ["name", "country", "description"],
        },
    }
    if described:
        companies["description"] = "Companies they've worked for"
    required = ["name", "profession", "description"] + (["companies"] if d.chance(0.5) else [])
    return {
        "type": "object",
        "properties": {
            "name": text("The person's full name"),
            "profession": text("Their primary occupation"),
            "description": text("A brief biography"),
            "companies": companies,
        },
        "required": required,
    }


def person(d: Draw) -> Sample:
    """Facts that must be known by heart, under one schema, said in the prompt or not.

    Where neither the prompt nor a grammar says so these people are answered with bare JSON too: the schema of
    the API is not in the prompt, so the model cannot tell. About all other people it says that it does not know.
    """
    known = d.choice(FAMOUS)
    schema = person_schema(d)
    messages = [] if d.chance(0.6) else [system(system_line(d))]
    if d.chance(0.3):
        messages = [system(d.choice(BY_SCHEMA[:-2]).format(s=json.dumps(schema)))]
    request = d.wording(_ABOUT).format(n=known["name"])
    if word_for_word(d):
        known, request = FAMOUS[0], "Tell me about Albert Einstein"
    return Sample([*messages, user(request), says_json(known)], schema=schema, form=has_keys(list(known)))
