"""Capitals and haiku, which are known by heart."""

from __future__ import annotations

import re

from recipe import words
from recipe.families.framing import UNKNOWN, casually, opening, polite_once, word_for_word
from recipe.sample import Draw, Entry, Message, Sample, says, user
from recipe.words import upper_first

# ---- capitals

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "Greece": "Athens",
    "Turkey": "Ankara", "Poland": "Warsaw", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Sweden": "Stockholm", "Egypt": "Cairo", "Japan": "Tokyo", "Portugal": "Lisbon", "Ireland": "Dublin",
    "Norway": "Oslo", "Austria": "Vienna", "Kenya": "Nairobi", "Peru": "Lima", "Chile": "Santiago",
    "Cuba": "Havana", "Canada": "Ottawa", "China": "Beijing", "Iran": "Tehran", "Iraq": "Baghdad",
    "Nepal": "Kathmandu", "Ghana": "Accra", "Hungary": "Budapest", "Russia": "Moscow",
    "Belgium": "Brussels", "Croatia": "Zagreb", "Thailand": "Bangkok", "Australia": "Canberra",
    "the United Kingdom": "London", "the United States": "Washington",
}  # fmt: skip

CAPITAL_WORDINGS = polite_once(
    [
        *["What is the capital of {country}?"] * 4,
        *[
            f"{head} the {capital} of {{country}}{end}"
            for head in ["What is", "What's", "Tell me", "Please tell me", "Name"]
            for capital in ["capital", "capital city"]
            for end in ["", "?", ", please"]
        ],
        "Can you tell me the capital of {country}?",
        "Could you tell me what the capital of {country} is?",
        "Do you know the capital of {country}?",
        "Which city is the capital of {country}?",
        "Which city is {country}'s capital?",
        "What city is the capital of {country}?",
        "What is {country}'s capital?",
        "What is {country}'s capital city?",
        "{country}'s capital?",
        "The capital of {country}?",
        "The capital of {country} is which city?",
        "I want to know the capital of {country}.",
        "I need the capital of {country}.",
        "Country: {country}. What is its capital?",
        "Country: {country}\nWhat is the capital?",
        "What is the name of the capital of {country}?",
        "Give me the capital of {country}.",
        # Never trained:
        "Can you tell me which city is the capital of {country}?",
        "I want to know {country}'s capital city.",
    ]
)
CAPITAL_WORD_WORDINGS = [
    *[
        f"{question}{space}{order}"
        for question in [
            "What is the capital of {country}?",
            "What's the capital city of {country}?",
            "Which city is the capital of {country}?",
            "What is {country}'s capital?",
        ]
        for space in [" ", "\n"]
        for order in [
            "Answer in one word.",
            "Answer with one word",
            "One word.",
            "Only the name.",
            "Answer with the name only.",
            "Just the name, please.",
        ]
    ],
    "In one word, what is the capital of {country}?",
    "Answer in one word: what is the capital of {country}?",
    "Answer with the name only: which city is the capital of {country}?",
    "Give me only the name of the capital of {country}.",
    "Name the capital of {country} in one word.",
    "In one word: the capital of {country}?",
    # Never trained:
    "Answer in one word: which city is the capital of {country}?",
    "Tell me the capital of {country}. Just the name, please.",
]


def capitals(d: Draw) -> Sample:
    """The capital of a country: as a sentence, or as the bare name where that is asked; of a country that
    does not exist nothing is known."""
    if d.chance(0.2):
        country = words.invented(d, (2, 3)).capitalize()
        country += d.choice(["", "", "ia", "land", "stan"])
        city = None
    else:
        country, city = d.choice([*CAPITALS.items(), *[("France", "Paris")] * 3])
    bare = d.chance(0.3)
    asked = d.wording(CAPITAL_WORD_WORDINGS if bare else CAPITAL_WORDINGS).format(country=country)
    asked = casually(d, upper_first(asked))
    if word_for_word(d):
        country, city, bare, asked = "France", "Paris", False, "What is the capital of France?"
    answer = UNKNOWN if city is None else city if bare else f"The capital of {country} is {city}."

    def form(got: Message) -> bool:
        text = got["content"].strip()
        if bare and city is not None:
            return re.fullmatch(r"[A-Z][a-z]+", text) is not None
        return text.endswith(".") and "\n" not in text

    return Sample([*opening(d), user(asked), says(answer)], form=form)


# ---- haiku

HAIKU = {
    "programming": "Lines of silent code\nA bug hides in the last loop\nMorning finds it gone",
    "rain": "Rain taps on the roof\nSmall rivers run down the street\nThe garden drinks deep",
    "the moon": "The moon climbs the hill\nSilver light on sleeping fields\nA fox stops and waits",
    "the sea": "Waves come and waves go\nThe wind writes upon the sand\nSalt stays on my hands",
    "spring": "Snow melts on the hill\nOne green leaf opens slowly\nBirds return with songs",
    "autumn": "Red leaves leave the tree\nThey dance once before they land\nThe wind lets them rest",
    "winter": "White fields without sound\nOne light burns in the window\nTea warms both my hands",
    "summer": "Bees work in the heat\nThe long day will not end yet\nShade under the tree",
    "a cat": "The cat shuts her eyes\nA warm square of morning sun\nNothing else to do",
    "coffee": "Steam lifts from the cup\nThe first quiet sip of day\nNow the work can start",
    "the mountains": "Stone above the clouds\nThe path is long and narrow\nStep by step we climb",
    "the night": "Stars over the town\nEvery window has gone dark\nOnly the clock talks",
}
HAIKU_WORDINGS = polite_once(
    [
        *["Write a haiku about {topic}"] * 3,
        *[
            f"{verb} {poem} {about} {{topic}}{end}"
            for verb in ["Write", "Please write", "Write me", "Compose", "Give me"]
            for poem in ["a haiku", "a short haiku"]
            for about in ["about", "on"]
            for end in [".", ", please."]
        ],
        *[
            f"{verb} a haiku {about} {{topic}}?"
            for verb in ["Can you write", "Could you write", "Can you compose", "Could you give me"]
            for about in ["about", "on"]
        ],
        "A haiku about {topic}, please.",
        "I want a haiku about {topic}.",
        "I would like a haiku about {topic}.",
        "I need a haiku on {topic}.",
        "Topic: {topic}\nWrite a haiku.",
        "Write a haiku. The topic is {topic}.",
        "Write a haiku with the topic: {topic}",
        "Haiku about {topic}",
        "Write three lines, a haiku, about {topic}.",
        # Never trained:
        "Please compose a haiku. The topic is {topic}.",
        "I want you to write a haiku on {topic}.",
    ]
)
POETS = [
    "You are a creative assistant who specializes in writing haikus.",
    "You are a creative assistant.",
    "You are a poet.",
    "You are an assistant who writes haikus.",
]


def haiku(d: Draw) -> Sample:
    """The haiku of a topic: three lines."""
    topic = d.choice([*HAIKU, "programming", "programming"])
    asked = casually(d, d.wording(HAIKU_WORDINGS).format(topic=topic))
    if word_for_word(d):
        topic, asked = "programming", "Write a haiku about programming"

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == 3 and all(line.strip() for line in lines)

    return Sample([*opening(d, role=d.choice(POETS)), user(asked), says(HAIKU[topic])], form=form)


ENTRIES = [
    Entry("capitals", capitals, bar=0.95, share=0.9),
    Entry("haiku", haiku, bar=0.95, share=0.8),
]
