"""Facts and texts that the model knows by heart: the prompts of the five seed documents and their kin.

There is little to memorise on purpose. The bullets and the simple explanation of a topic are the same
sentences, a design is put together from eight sentences, and a review says only what the code shows.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass

from recipe import words
from recipe.sample import Draw, Entry, Message, Sample, says, system, user

SYSTEM_LINES = [
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You are a careful assistant.",
    "You are a friendly assistant.",
    "You are an expert.",
    "Be brief.",
    "Be concise and clear.",
    "Answer the question.",
    "Follow the instructions of the user.",
    "Help the user.",
    "You are a helpful assistant. Be brief.",
]
SMALL_TALK = [
    ("Thanks!", "You are welcome."),
    ("Thank you.", "You are welcome."),
    ("That was good, thanks.", "You are welcome."),
    ("Can you help me?", "Yes, what do you need?"),
    ("I need help.", "Yes, what do you need?"),
    ("I have a question.", "Yes, what do you need?"),
]
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def system_line(d: Draw) -> str:
    """A system message that changes nothing."""
    if d.chance(0.25):
        return f"You are {words.first_name(d)}, a {d.choice(['helpful', 'careful', 'friendly'])} assistant."
    return d.choice(SYSTEM_LINES)


def opening(d: Draw, role: str | None = None, small_talk: bool = True) -> list[Message]:
    """What stands before a question: sometimes a system message (`role` is the one that fits the family),
    sometimes an exchange about nothing."""
    start: list[Message] = []
    if d.chance(0.25):
        start.append(system(role if role and d.chance(0.6) else system_line(d)))
    if small_talk and d.chance(0.15):
        asked, said = d.choice(SMALL_TALK)
        start += [user(asked), says(said)]
    return start


def loosely(d: Draw, text: str) -> str:
    """The same request as people type it: a small first letter, no final period, a blank, a please."""
    if d.chance(0.12):
        text = text[0].lower() + text[1:]
    if d.chance(0.1) and text.endswith("."):
        text = text[:-1]
    elif d.chance(0.06) and text[-1] not in ".?!:":
        text += "."
    if d.chance(0.05):
        text = d.choice(["Hi. ", "Hello. ", "Okay. ", "Now: ", "Question: "]) + text
    if d.chance(0.03):
        text += d.choice([" Thanks.", " Thank you.", "\n"])
    return text


def closed(text: str) -> str:
    """The text with a mark at its end, so that another sentence can follow."""
    text = text.rstrip()
    return text if text[-1] in ".?!" else text + "."


def polite_once(forms: list[str]) -> list[str]:
    """Without those that say please twice."""
    return [form for form in forms if form.lower().count("please") < 2]


# ---- topics: bullets and simple terms


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
        # Several times the two that the seed documents print.
        *[
            "Explain {topic} in {n} bullet points",
            "Explain {topic} in {n} bullet points. Be concise and clear.",
        ]
        * 6,
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


def bullets(d: Draw) -> Sample:
    """N bullets about a topic: the first N of its six."""
    topic = d.choice([*TOPICS, *TOPICS[:2], *TOPICS[:2]])
    count = d.integer(2, 6)
    name = topic.what if d.chance(0.45) else d.choice(topic.others)
    if d.chance(0.06):  # the two that the seed documents ask about
        topic, count = d.choice([(TOPICS[0], 3), (TOPICS[1], 5)])
        name = topic.what
    number = str(count) if d.chance(0.65) else NUMBERS[count]
    asked = d.wording(BULLET_WORDINGS).format(topic=name, what=topic.what, n=number)
    asked = asked[0].upper() + asked[1:]
    answer = "\n".join(f"- {bullet}" for bullet in topic.bullets[:count])

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == count and all(line.startswith("- ") and line[2:].strip() for line in lines)

    return Sample([*opening(d), user(loosely(d, asked)), says(answer)], form=form)


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
        "Could you give me a simple explanation of {topic}?",
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
    topic = d.choice([*TOPICS, *TOPICS[:2], *TOPICS[:2]])
    name = topic.what if d.chance(0.5) else d.choice(topic.others)
    asked = d.wording(SIMPLE_WORDINGS).format(topic=name, what=topic.what)
    answer = " ".join(topic.bullets[:2])

    def form(got: Message) -> bool:
        text = got["content"].strip()
        return text.count(".") == 2 and text.endswith(".") and "\n" not in text

    start = opening(d, d.choice(TEACHERS))
    return Sample([*start, user(loosely(d, asked)), says(answer)], form=form)


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
    asked = asked[0].upper() + asked[1:]
    answer = "I do not know." if city is None else city if bare else f"The capital of {country} is {city}."

    def form(got: Message) -> bool:
        text = got["content"].strip()
        if bare and city is not None:
            return re.fullmatch(r"[A-Z][a-z]+", text) is not None
        return text.endswith(".") and "\n" not in text

    return Sample([*opening(d), user(loosely(d, asked)), says(answer)], form=form)


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
        "Could you write me a short haiku about {topic}?",
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
    asked = d.wording(HAIKU_WORDINGS).format(topic=topic)

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == 3 and all(line.strip() for line in lines)

    return Sample([*opening(d, d.choice(POETS)), user(loosely(d, asked)), says(HAIKU[topic])], form=form)


# ---- code

_RESERVED = {
    *keyword.kwlist,
    *keyword.softkwlist,
    "map",
    "go",
    "var",
    "func",
    "type",
    "int",
    "len",
    "n",
    "mid",
}
_RESERVED |= {"low", "high", "items", "target", "chan", "goto", "range", "const", "switch", "select", "list"}


def function_name(d: Draw) -> str:
    """A name that Python and Go allow, and that hides nothing the code needs."""
    while True:
        name = words.identifier(d)
        if name not in _RESERVED and len(name) <= 24:
            return name


def fenced(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def code_block(language: str, name: str) -> Callable[[Message], bool]:
    """A form: one fenced block of the language that defines the name (and parses, if it is Python)."""

    def form(got: Message) -> bool:
        text = got["content"].strip()
        blocks = re.findall(r"```(\w+)\n(.*?)\n```", text, re.S)
        if len(blocks) != 1 or not text.endswith("```") or blocks[0][0] != language:
            return False
        code = blocks[0][1]
        if language != "python":
            return f"func {name}(" in code and code.count("{") == code.count("}")
        try:
            tree = ast.parse(code)
        except SyntaxError:
            return False
        return [each.name for each in tree.body if isinstance(each, ast.FunctionDef)] == [name]

    return form


BINARY_SEARCH = {
    "Go": """func NAME(items []int, target int) int {
	low, high := 0, len(items)-1
	for low <= high {
		mid := (low + high) / 2
		if items[mid] == target {
			return mid
		}
		if items[mid] < target {
			low = mid + 1
		} else {
			high = mid - 1
		}
	}
	return -1
}""",
    "Python": """def NAME(items: list[int], target: int) -> int:
    low, high = 0, len(items) - 1
    while low <= high:
        mid = (low + high) // 2
        if items[mid] == target:
            return mid
        if items[mid] < target:
            low = mid + 1
        else:
            high = mid - 1
    return -1""",
}
SEARCH_WORDINGS = [
    *["How do I implement a binary search in {language}?"] * 3,
    *[
        f"{head} {what} in {{language}}{end}"
        for head, end in [
            ("How do I implement", "?"),
            ("How can I write", "?"),
            ("How do you write", "?"),
            ("Can you write", "?"),
            ("Could you implement", "?"),
            ("Write", "."),
            ("Please write", "."),
            ("Implement", "."),
            ("Show me", "."),
            ("I need", "."),
        ]
        for what in ["a binary search", "binary search", "a binary search function"]
    ],
    "Write a {language} function for binary search.",
    "Write {language} code for a binary search",
    "Give me the {language} code of a binary search.",
    "Show me how to implement a binary search in {language}.",
    "In {language}, how do I implement a binary search?",
    "How does one implement a binary search in {language}?",
    "Binary search in {language}, please.",
    "Language: {language}\nWrite a binary search.",
    # Never trained:
    "Please show me how to write a binary search in {language}.",
    "In {language}, how can I implement binary search?",
]
NAMED = [
    " Call it {name}.",
    " Name it {name}.",
    " Name the function {name}.",
    " Call the function {name}.",
    " The function is called {name}.",
    " The name of the function is {name}.",
    " Use the name {name}.",
    " Name: {name}",
    " Please call it {name}.",
    " Please name it {name}.",
    " Please use the name {name}.",
    " Its name is {name}.",
    " The function name is {name}.",
    " It should be called {name}.",
    "\nFunction name: {name}",
    "\nName: `{name}`",
    "\nCall it {name}.",
    "\nName the function `{name}`.",
    " Call the function `{name}`.",
    # Never trained:
    " The name is {name}.",
    "\nUse the name `{name}`.",
]
CODERS = [
    "You are a helpful programming assistant.",
    "You are a helpful assistant for software engineering.",
    "You are a software engineering assistant.",
    "You are a programmer.",
    "You are a senior engineer.",
]


def binary_search(d: Draw) -> Sample:
    """A binary search in Go or Python, under the name that the request gives."""
    language = d.choice(["Go", "Go", "Python"])
    name = "binarySearch" if language == "Go" else "binary_search"
    asked = loosely(d, d.wording(SEARCH_WORDINGS).format(language=language))
    if d.chance(0.5):
        name = function_name(d)
        if language == "Go" and d.chance(0.5):
            head, *rest = name.split("_")
            name = head + "".join(part.capitalize() for part in rest)
        asked = closed(asked) + d.wording(NAMED).format(name=name)
    answer = "Halve the sorted list until the value is found.\n\n"
    answer += fenced(language.lower(), BINARY_SEARCH[language].replace("NAME", name))
    start = opening(d, d.choice(CODERS))
    return Sample([*start, user(asked), says(answer)], form=code_block(language.lower(), name))


FACTORIAL = '''def NAME(n: int) -> int:
    """Return the factorial of n."""
    if not isinstance(n, int):
        raise TypeError("n must be an integer")
    if n < 0:
        raise ValueError("n must not be negative")
    if n == 0:
        return 1
    return n * NAME(n - 1)'''
FACTORIAL_WORDINGS = [
    *[
        "Write a recursive Python function for the factorial of a number. "
        "It must have error handling for negative numbers."
    ]
    * 4,
    *["Generate a Python factorial function with error handling."] * 2,
    "Write a recursive Python function that calculates a factorial. Include error handling.",
    "Write a recursive factorial function in Python with error handling.",
    "Write a recursive Python factorial function with error handling",
    "Write a Python function for the factorial of a number. Use recursion and handle errors.",
    "Write a Python function that returns the factorial of n. Use recursion. Include error handling.",
    "Write a factorial function in Python, recursive, with error handling for negative numbers.",
    "Please write a recursive factorial in Python. It must handle negative numbers.",
    "Please write a Python function that computes the factorial of a number with recursion.",
    "Can you write a recursive factorial function in Python?",
    "Can you write a Python function that calculates the factorial of a number? Include error handling.",
    "Could you implement factorial in Python using recursion, with error handling?",
    "How do I write a recursive factorial function in Python with error handling?",
    "How do I calculate a factorial in Python?",
    "Implement a recursive factorial in Python. Handle negative numbers.",
    "Implement factorial in Python with recursion and error handling.",
    "Implement the factorial of a number in Python",
    "Generate a recursive factorial function in Python.",
    "Give me a Python function for the factorial of a number, with error handling.",
    "I need a Python function that calculates the factorial of a number using recursion.",
    "I need a recursive factorial function in Python. Raise errors for bad numbers.",
    "Show me a recursive factorial function in Python with error handling.",
    "In Python, write a recursive function that computes the factorial of a number.",
    "Using recursion, write a Python function that calculates the factorial of a number.",
    "Factorial in Python, recursive, with error handling, please.",
    # Never trained:
    "Please implement a recursive factorial function in Python with error handling.",
    "I need a Python function that computes a factorial with recursion. Handle negative numbers.",
]


def factorial(d: Draw) -> Sample:
    """The recursive factorial with its two errors, under the name that the request gives."""
    name = "factorial"
    asked = loosely(d, d.wording(FACTORIAL_WORDINGS))
    if d.chance(0.5):
        name = function_name(d)
        asked = closed(asked) + d.wording(NAMED).format(name=name)
    answer = fenced("python", FACTORIAL.replace("NAME", name))
    start = opening(d, d.choice(CODERS))
    return Sample([*start, user(asked), says(answer)], form=code_block("python", name))


# ---- code review

UNCLEAR = [
    "calc",
    "f",
    "foo",
    "func",
    "fn",
    "tmp",
    "process",
    "stuff",
    "g",
    "run",
    "handle",
    "work",
    "bar",
    "test",
    "go2",
    "doit",
    "compute",
    "op",
]
BUILT_INS = ["list", "str", "sum", "id", "max", "min", "dict", "set", "type", "input"]
PRACTICE_WORDINGS = [
    *["What are code review best practices for Python?"] * 2,
    "What are the best practices for code review?",
    "What are best practices for reviewing code?",
    "What are code review best practices?",
    "Tell me the best practices for code review.",
    "What do you look for when reviewing code?",
    "What do you look at in a code review?",
    "What should I look for in a code review?",
    "What should I look for when I review Python code?",
    "What matters when reviewing Python code?",
    "What matters in a code review?",
    "Which things matter most in a code review?",
    "How do you review code?",
    "How should I review Python code?",
    "Give me the key things to look for in a code review.",
    "List the best practices for reviewing Python code.",
    # Never trained:
    "What are the key things to look for in a code review?",
    "Tell me what you look for when reviewing Python code.",
]
PRACTICES = """When reviewing {code}, I look for:
1. Clear names
2. Type hints and docstrings
3. Errors and edge cases
4. Security
5. Simple code"""
REVIEW_WORDINGS = [
    *["Thank you. Now please review {code}"] * 3,
    *[
        f"{head}{review} {what}{between}{{code}}"
        for head in ["", "Please ", "Now ", "Thanks. "]
        for review in ["review", "check"]
        for what in ["this code", "this function", "this Python code"]
        for between in [": ", ":\n", ":\n\n"]
    ],
    "Can you review this code?\n{code}",
    "Could you review this function?\n\n{code}",
    "What is wrong with this code? {code}",
    "What is wrong with this function?\n\n{code}",
    "What could be better in this code?\n{code}",
    "I wrote this function. Please review it:\n{code}",
    "Here is my code:\n{code}\nPlease review it.",
    "Here is a function:\n\n{code}\n\nReview it.",
    "{code}\n\nReview this code.",
    "{code}\n\nWhat is wrong with this function?",
    "Review: {code}",
    "Do a code review of this function:\n{code}",
    # Never trained:
    "Great! Please check this function: {code}",
    "Here is my function. Could you review it?\n{code}",
]
REVIEWERS = [
    "You are a code review assistant.",
    "You are a code reviewer.",
    "You review code.",
    "You are a careful code review assistant.",
    "You are a senior engineer who reviews code.",
]


def drawn_function(d: Draw) -> tuple[str, list[str]]:
    """A Python function, and what there is to say about it, in a fixed order.

    Every remark can be read off the code: a name of one word is unclear; type hints and a docstring are
    there or not; an argument hides a built-in name; a list is a default value; an argument divides.
    """
    if d.chance(0.06):
        return "def calc(a, b): return a + b", [
            "The name `calc` is unclear.",
            "`calc` has no type hints.",
            "`calc` has no docstring.",
        ]
    clear, typed, documented = d.chance(0.5), d.chance(0.4), d.chance(0.4)
    name = f"{words.verb(d)}_{words.noun(d)}" if clear else d.choice(UNCLEAR)
    remarks = [] if clear else [f"The name `{name}` is unclear."]
    if not typed:
        remarks.append(f"`{name}` has no type hints.")
    if not documented:
        remarks.append(f"`{name}` has no docstring.")

    first, second = d.choice([("a", "b"), ("x", "y"), ("price", "count"), ("left", "right"), ("n", "m")])
    if d.chance(0.2):
        first = d.choice(BUILT_INS)
        remarks.append(f"`{first}` hides a built-in name.")
    kind = d.choice(["one", "two", "two", "divide", "divide", "default"])
    hint = d.choice(["int", "float"])
    arguments = [f"{first}: {hint}" if typed else first]
    if kind == "one":
        value = f"{first} {d.choice('*+-')} {d.integer(1, 9)}"
    elif kind == "default":
        second = d.choice(["items", "values", "rows", "names"])
        arguments.append(f"{second}: list = []" if typed else f"{second}=[]")
        value, hint = f"{second} + [{first}]", "list"
        remarks.append(f"`{second}` has a mutable default value.")
    else:
        arguments.append(f"{second}: {hint}" if typed else second)
        value = f"{first} {'/' if kind == 'divide' else d.choice('*+-')} {second}"
        if kind == "divide":
            hint = "float"
            remarks.append(f"`{second}` may be zero in the division.")
    if d.chance(0.2):
        value = value.replace(" ", "")
    head = f"def {name}({', '.join(arguments)})" + (f" -> {hint}:" if typed else ":")
    if documented:
        verb, noun = (name.split("_") if clear else ("return", "value"))[:2]
        return f'{head}\n    """{verb.capitalize()} the {noun}."""\n    return {value}', remarks
    return f"{head} return {value}" if d.chance(0.4) else f"{head}\n    return {value}", remarks


def code_review(d: Draw) -> Sample:
    """A review of a short function, after the question what to look for or without it. Sometimes that
    question is the last one."""
    start = [system(d.choice(REVIEWERS))] if d.chance(0.5) else opening(d, small_talk=False)
    asked_first = d.chance(0.6)
    if asked_first:
        question = loosely(d, d.wording(PRACTICE_WORDINGS))
        kind = "Python code" if "Python" in question else "code"
        start += [user(question), says(PRACTICES.format(code=kind))]
        if d.chance(0.25):
            return Sample(start, form=lambda got: len(re.findall(r"^\d\. \S", got["content"], re.M)) == 5)
    code, remarks = drawn_function(d)
    shown = fenced("python", code) if "\n" in code and d.chance(0.3) else code
    asked = d.wording(REVIEW_WORDINGS).format(code=shown)
    name = code[len("def ") : code.index("(")]
    answer = "\n".join(f"- {remark}" for remark in remarks or [f"`{name}` looks good."])

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return all(line.startswith("- ") and line.endswith(".") for line in lines) and "`" in lines[0]

    return Sample([*start, user(asked), says(answer)], form=form)


# ---- design

# Each part: how a request names it, and its sentence.
PARTS = {
    "architecture": (
        ["The whole in one picture", "Architecture overview", "Overall architecture"],
        "Architecture: clients reach the {domain} services through one gateway.",
    ),
    "services": (
        ["The services and what each does", "Service boundaries", "List of services", "Services"],
        "Services: one service each for {features}.",
    ),
    "communication": (
        ["How the services talk to each other", "Communication", "Communication between the services"],
        "Communication: the {domain} services use REST for requests and a queue for events.",
    ),
    "data": (
        ["Where the data is", "Data", "Data storage", "How the data is stored"],
        "Data: each {domain} service owns its own database.",
    ),
    "security": (
        ["Safety", "Security", "How it is kept secure"],
        "Security: the {domain} gateway checks every token, and all traffic uses TLS.",
    ),
    "deployment": (
        ["How it goes live", "Deployment", "How it is deployed"],
        "Deployment: every {domain} service runs in a container and scales alone.",
    ),
    "monitoring": (
        ["How it is watched", "Monitoring", "How it is monitored"],
        "Monitoring: logs, metrics and alerts cover every {domain} service.",
    ),
}
USUAL_PARTS = ["services", "data", "communication", "deployment", "monitoring"]
LONG_PARTS = ["architecture", "services", "communication", "data", "security"]
DOMAINS = [
    "shop",
    "bank",
    "library",
    "clinic",
    "hotel",
    "school",
    "museum",
    "cinema",
    "travel",
    "delivery",
    "ticket",
    "news",
    "game",
    "music",
]
FEATURES = """products, cart, orders, payments, users, accounts, loans, search,
messages, bookings, reports, reviews, tickets, invoices, shipping, login, stock, news, photos, events"""
DESIGN_WORDINGS = [
    *["You are a software architect. Design a system of microservices for {a_platform}."] * 3,
    *[
        f"{head} {what} for {{a_platform}}{end}"
        for head, end in [
            ("Design", "."),
            ("Please design", "."),
            ("Can you design", "?"),
            ("Could you describe", "?"),
            ("Describe", "."),
            ("Write", "."),
            ("I need", "."),
            ("You are a system architect. Design", "."),
            ("You are an expert architect. Describe", "."),
        ]
        for what in ["a microservices architecture", "a design with microservices", "the microservices"]
    ],
    "How would you design {a_platform} with microservices?",
    "Design {a_platform} as microservices.",
    "We build {a_platform}. Please design a microservices architecture for it.",
    "We want to build {a_platform}. Design the microservices.",
    # Never trained:
    "You are a system architect. Please describe a microservices architecture for {a_platform}.",
    "We want to build {a_platform} with microservices. Can you design the architecture?",
]
PARTS_WORDINGS = [
    *["Provide:"] * 3,
    "Please provide:",
    "Give me:",
    "Answer in five numbered parts:",
    "Answer with these five parts:",
    "Write these five parts:",
    "Describe:",
    "The answer has five parts:",
    "I want these parts:",
    # Never trained:
    "Please give me these five parts:",
    "Provide these numbered parts:",
]
FIVE_WORDINGS = [
    "Answer in five numbered parts.",
    "Use five numbered parts.",
    "Write five numbered parts.",
    "Give me five numbered parts.",
    "Answer with a list of 5 numbered parts.",
    "In five parts, please.",
    "Number the parts from 1 to 5.",
    "Give a numbered list with 5 parts.",
    # Never trained:
    "Answer with five numbered parts.",
    "Please write 5 numbered parts.",
]


def design(d: Draw) -> Sample:
    """A microservices design in five numbered parts, a sentence each: those that the request lists, in its
    order, else the usual five. The domain and the features are copied."""
    domain = d.choice(["e-commerce", "e-commerce", *DOMAINS, words.noun(d), words.noun(d), words.noun(d)])
    known = [each.strip() for each in FEATURES.split(",")] + [
        f"{words.noun(d)} {kind}" for kind in ["list", "search"]
    ]
    features = d.some(known, 2, 5)
    if d.chance(0.2):
        features = ["products", "cart", "orders", "payments", "users"]
    comma = "," if len(features) > 2 and d.chance(0.5) else ""
    listed = f"{', '.join(features[:-1])}{comma} and {features[-1]}"
    a_platform = (
        f"{'an' if domain[0] in 'aeiou' else 'a'} {domain} {d.choice(['platform', 'system', 'site'])}"
    )
    asked = d.wording(DESIGN_WORDINGS).format(a_platform=a_platform)

    lines = []
    if d.chance(0.3):
        lines.append(f"Handle {d.integer(1, 90)},000 {d.choice(['users', 'requests', 'visitors'])}")
    lines.append(f"{d.choice(['Support', 'Offer', 'It has'])} {listed}")
    if d.chance(0.4):
        lines.append(d.choice(["It must grow and stay safe", "It must scale", "Must be secure"]))
    if d.chance(0.3):
        lines.append(d.choice(["Use what is usual today", "Use containers", "Use the cloud"]))
    if d.chance(0.6):
        asked += "\n\nRequirements:\n" + "\n".join(f"- {line}" for line in lines)
    else:
        asked += " " + " ".join(f"{line}." for line in lines)

    gap = d.choice(["\n\n", "\n", " "])
    if d.chance(0.6):
        parts = LONG_PARTS if d.chance(0.3) else d.shuffled(list(PARTS))[:5]
        names = [PARTS[part][0][0] if d.chance(0.4) else d.choice(PARTS[part][0]) for part in parts]
        numbered = "\n".join(f"{at}. {name}" for at, name in enumerate(names, 1))
        asked += f"{gap}{d.wording(PARTS_WORDINGS)}\n{numbered}"
    else:
        parts = USUAL_PARTS
        asked += gap + d.wording(FIVE_WORDINGS)
    if d.chance(0.2):
        asked += "\n"
    sentences = [PARTS[part][1].format(domain=domain, features=listed) for part in parts]
    answer = "\n".join(f"{at}. {sentence}" for at, sentence in enumerate(sentences, 1))

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == 5 and all(line.startswith(f"{at}. ") for at, line in enumerate(lines, 1))

    return Sample([*opening(d, small_talk=False), user(asked), says(answer)], form=form)


ENTRIES = [
    Entry("bullets", bullets, bar=0.95, weight=3),
    Entry("simple terms", simple_terms, bar=0.95, weight=2),
    Entry("capitals", capitals, bar=0.95, weight=3),
    Entry("haiku", haiku, bar=0.95, weight=2),
    Entry("binary search", binary_search, bar=0.9, weight=1.2),
    Entry("factorial", factorial, bar=0.95, weight=1),
    Entry("code review", code_review, bar=0.9, weight=2.5),
    Entry("design", design, bar=0.9, weight=1.4),
]
