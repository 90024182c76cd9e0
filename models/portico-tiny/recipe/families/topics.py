"""Explanations known by heart: so many bullets about a topic, or two sentences in simple terms.

There is little to memorise on purpose: both answers are the first of the same six sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe import words
from recipe.families.framing import casually, opening, polite_once, word_for_word
from recipe.sample import Draw, Entry, Message, Sample, says, user
from recipe.words import upper_first


@dataclass(frozen=True)
class Topic:
    """what: fits after "what is"; others: more names, which fit after "explain"."""

    what: str
    others: tuple[str, ...]
    bullets: tuple[str, ...]


TOPICS = [
    Topic(
        "the difference between a compiler and an interpreter",
        (
            "the difference between compilers and interpreters",
            "how a compiler differs from an interpreter",
            "the difference between an interpreter and a compiler",
        ),
        (
            "A compiler translates the whole program before it runs.",
            "An interpreter runs the program line by line.",
            "Compiled programs run fast but must be built first.",
            "Interpreted programs start at once but run slower.",
            "A compiler reports errors before the program runs.",
            "An interpreter reports errors when it reaches them.",
        ),
    ),
    Topic(
        "quantum computing",
        ("quantum computers", "how quantum computing works", "how quantum computers work"),
        (
            "A quantum computer uses qubits in place of bits.",
            "A qubit can be a mix of 0 and 1.",
            "Entangled qubits share one common state.",
            "Some hard problems can be solved much faster.",
            "Qubits are fragile and make many errors.",
            "The machines of today are still small.",
        ),
    ),
    Topic(
        "a transformer",
        ("how transformers work", "transformers", "how a transformer works"),
        (
            "A transformer reads text as a list of tokens.",
            "Attention shows each token which others matter.",
            "Many layers refine the meaning of each token.",
            "All tokens are read at the same time.",
            "The model then predicts the next token.",
            "It learns from large amounts of text.",
        ),
    ),
    Topic(
        "recursion",
        ("recursive functions", "how recursion works", "a recursive function"),
        (
            "A recursive function calls itself.",
            "Each call works on a smaller problem.",
            "A base case stops the calls.",
            "Each call waits for the next one.",
            "It fits trees and nested lists well.",
            "Too many calls can fill the stack.",
        ),
    ),
    Topic(
        "a hash table",
        ("hash tables", "how hash tables work", "how a hash table works"),
        (
            "A hash table stores values under keys.",
            "A hash function turns each key into a place.",
            "Finding a value is fast on average.",
            "Two keys can get the same place.",
            "Such collisions must be handled.",
            "The table grows when it is full.",
        ),
    ),
    Topic(
        "an API",
        ("APIs", "how an API works", "how APIs work"),
        (
            "An API lets two programs talk to each other.",
            "One program sends a request and gets a response.",
            "It says which requests are allowed.",
            "It hides how the work is done.",
            "Many APIs on the web send JSON.",
            "A key can show who is asking.",
        ),
    ),
    Topic(
        "a database",
        ("databases", "how databases work", "how a database works"),
        (
            "A database stores data so that it can be found.",
            "Programs ask it for data with queries.",
            "Many databases keep data in tables.",
            "An index makes a search faster.",
            "Transactions keep the data correct.",
            "A backup protects against loss.",
        ),
    ),
    Topic(
        "machine learning",
        ("how machine learning works", "a machine learning model", "machine learning models"),
        (
            "A machine learning model learns from examples.",
            "It finds patterns instead of following fixed rules.",
            "Training changes the numbers inside the model.",
            "Good data makes a better model.",
            "It is tested on data it has not seen.",
            "It can be wrong and must be checked.",
        ),
    ),
    Topic(
        "the internet",
        ("how the internet works", "the Internet"),
        (
            "The internet connects computers all over the world.",
            "Data travels through it in small packets.",
            "Every computer has an address.",
            "Routers send each packet on its way.",
            "Names are turned into addresses by DNS.",
            "The web is one service that uses it.",
        ),
    ),
    Topic(
        "a cache",
        ("caches", "caching", "how a cache works", "how caching works"),
        (
            "A cache keeps copies of data close by.",
            "Reading a copy is faster than asking again.",
            "A cache is small, so old copies are dropped.",
            "A hit means that the copy was found.",
            "A miss means that it must be loaded.",
            "Copies can be out of date.",
        ),
    ),
    Topic(
        "version control",
        ("how version control works", "version control systems"),
        (
            "Version control keeps the history of a project.",
            "Every change is saved with a short message.",
            "Many people can work on the same files.",
            "A branch keeps new work apart.",
            "A merge joins two branches.",
            "Old versions can be restored.",
        ),
    ),
    Topic(
        "a unit test",
        ("unit tests", "unit testing", "how unit tests work"),
        (
            "A unit test checks one small part of a program.",
            "It compares the result with the expected value.",
            "Tests find errors early.",
            "Each test should run alone and fast.",
            "A failed test shows where to look.",
            "Tests make changes safer.",
        ),
    ),
    Topic(
        "photosynthesis",
        ("how photosynthesis works", "how plants make sugar"),
        (
            "Plants use light to make sugar.",
            "They take in water and carbon dioxide.",
            "Green chlorophyll catches the light.",
            "Oxygen is given off as well.",
            "It happens mostly in the leaves.",
            "Almost all life depends on it.",
        ),
    ),
    Topic(
        "gravity",
        ("how gravity works", "the force of gravity"),
        (
            "Gravity pulls things with mass toward each other.",
            "It keeps us on the ground.",
            "It keeps the moon near the earth.",
            "More mass means a stronger pull.",
            "The pull gets weaker with distance.",
            "Falling things speed up because of it.",
        ),
    ),
    Topic(
        "the water cycle",
        ("how the water cycle works", "the cycle of water"),
        (
            "The sun turns water into vapor.",
            "The vapor rises and forms clouds.",
            "Rain brings the water back to the ground.",
            "Rivers carry it to the sea.",
            "Some water stays under the ground.",
            "Then the cycle starts again.",
        ),
    ),
]

BULLET_WORDINGS = polite_once(
    [
        *[
            "Explain {topic} in {n} bullet points",
            "Explain {topic} in {n} bullet points. Be concise and clear.",
        ]
        * 2,
        *[
            f"{verb} {{topic}} {shape}{end}"
            for verb in ["Explain", "Please explain", "Describe", "Summarize", "Tell me about"]
            for shape in ["in {n} bullet points", "in {n} bullets", "with {n} short bullet points"]
            for end in [".", ". Be brief.", ", please."]
        ],
        *[
            f"{verb} {{topic}} {shape}?"
            for verb in [
                "Can you explain",
                "Could you describe",
                "Can you summarize",
                "Could you explain to me",
            ]
            for shape in ["in {n} bullet points", "in {n} bullets", "as {n} bullet points"]
        ],
        "Give me {n} bullet points about {topic}.",
        "Give {n} bullets about {topic}",
        "Give a short overview of {topic}, {n} bullet points.",
        "I want {n} bullet points on {topic}.",
        "I need {n} bullet points that explain {topic}.",
        "Write {n} bullet points about {topic}.",
        "Write {n} short bullets on {topic}, please.",
        "Write a list of {n} bullet points that explains {topic}.",
        "In {n} bullet points, explain {topic}.",
        "In {n} bullet points: explain {topic}",
        "With {n} bullets, describe {topic}. Be clear and concise.",
        "Using {n} bullet points, explain {topic} to me.",
        "{n} bullet points about {topic}, please.",
        "{n} bullets on {topic}",
        "Bullet points about {topic}, exactly {n} of them.",
        "Topic: {topic}\nExplain it in {n} bullet points.",
        "Topic: {topic}. Write exactly {n} bullet points.",
        "Explain {topic}.\nUse exactly {n} bullet points.",
        "Explain {topic}. Answer with {n} bullet points.",
        "What is {what}? Answer in {n} bullet points.",
        "What is {what}? Explain in {n} bullets.",
        "What do you know about {topic}? Use {n} bullet points.",
        "Teach me about {topic} in {n} bullet points",
        "List {n} things about {topic} in bullet points.",
        # Never trained:
        "Please give me a short overview of {topic} in {n} bullet points.",
        "Could you write {n} bullet points that explain {topic}?",
    ]
)


COMPILER, QUANTUM = TOPICS[:2]
ASKED_EXACTLY = [
    (QUANTUM, 5, "Explain quantum computing in 5 bullet points"),
    (
        COMPILER,
        3,
        "Explain the difference between a compiler and an interpreter in 3 bullet points. Be concise and clear.",
    ),
]


def bullets(d: Draw) -> Sample:
    """N bullets about a topic: the first N of its six."""
    topic = d.choice([*TOPICS, COMPILER, QUANTUM, COMPILER, QUANTUM])
    count = d.integer(2, 6)
    name = topic.what if d.chance(0.45) else d.choice(topic.others)
    number = words.spelled(d, count, 0.35)
    asked = upper_first(d.wording(BULLET_WORDINGS).format(topic=name, what=topic.what, n=number))
    asked = casually(d, asked)
    if word_for_word(d, 0.08):
        topic, count, asked = d.choice(ASKED_EXACTLY)
    answer = "\n".join(f"- {bullet}" for bullet in topic.bullets[:count])

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == count and all(line.startswith("- ") and line[2:].strip() for line in lines)

    return Sample([*opening(d), user(asked), says(answer)], form=form)


SIMPLE_WORDINGS = polite_once(
    [
        *["Explain {topic} in simple terms"] * 3,
        *[
            f"{verb} {{topic}} {shape}{end}"
            for verb in ["Explain", "Please explain", "Describe", "Tell me about"]
            for shape in ["in simple terms", "in simple words", "in plain words", "simply"]
            for end in [".", ", please."]
        ],
        *[
            f"{verb} {{topic}} {shape}?"
            for verb in [
                "Can you explain",
                "Could you explain",
                "Can you describe",
                "Could you tell me about",
            ]
            for shape in ["in simple terms", "in simple words", "in plain terms"]
        ],
        "What is {what}?",
        "What is {what}, in simple terms?",
        "What is {what}? Explain it in simple terms.",
        "What is {what}? Use simple words.",
        "What is {what}? Explain it to a child.",
        "In simple terms, what is {what}?",
        "In simple terms, explain {topic}.",
        "In plain words, explain {topic}.",
        "In simple terms: explain {topic}",
        "Explain {topic}.",
        "Explain {topic} to me.",
        "Explain {topic} to a child.",
        "Explain {topic} to me as if I were a child.",
        "Explain {topic} in two sentences.",
        "Explain {topic} in two short, simple sentences.",
        "Teach me about {topic} in simple terms.",
        "I want to understand {topic}. Explain it in simple terms.",
        "I do not understand {topic}. Can you explain it simply?",
        "Give me a simple explanation of {topic}.",
        "Give a short and simple explanation of {topic}",
        "I need a simple explanation of {topic}.",
        "Topic: {topic}\nExplain it in simple terms.",
        "Write a simple explanation of {topic}, please.",
        # Never trained:
        "I want a short and simple explanation of {topic}.",
        "I want to understand {topic} in simple terms. Please explain.",
    ]
)
TEACHERS = [
    "You are a helpful physics teacher.",
    "You are a helpful teacher.",
    "You are a patient teacher.",
    "You are a helpful science teacher.",
    "You are a helpful programming teacher.",
]


def simple_terms(d: Draw) -> Sample:
    """Two plain sentences about a topic: its first two bullets."""
    topic = d.choice([*TOPICS, COMPILER, QUANTUM, COMPILER, QUANTUM])
    name = topic.what if d.chance(0.5) else d.choice(topic.others)
    asked = casually(d, d.wording(SIMPLE_WORDINGS).format(topic=name, what=topic.what))
    if word_for_word(d):
        topic, asked = QUANTUM, "Explain quantum computing in simple terms"
    answer = " ".join(topic.bullets[:2])

    def form(got: Message) -> bool:
        text = got["content"].strip()
        return text.count(".") == 2 and text.endswith(".") and "\n" not in text

    start = opening(d, role=d.choice(TEACHERS))
    return Sample([*start, user(asked), says(answer)], form=form)


ENTRIES = [
    Entry("bullets", bullets, bar=0.95, share=1.8),
    Entry("simple terms", simple_terms, bar=0.95, share=0.8),
]
