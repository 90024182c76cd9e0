"""Sorting, counting, joining and the like: a short text in, the same text changed by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recipe import words
from recipe.families.arithmetic import digits
from recipe.families.framing import framed, loosely
from recipe.sample import Draw, Entry, Message, Sample
from recipe.words import lower_first, upper_first


def some_word(d: Draw) -> str:
    """A lower-case word. Most of those trained on are invented: their letters have to be known here, and the
    words of the lists would be learned by heart instead."""
    if d.chance(0.6 if d.training else 0.2):
        return words.invented(d, (1, 2))
    return d.choice([words.noun, words.noun, words.adjective, words.verb])(d)


def different(
    d: Draw, make: Callable[[Draw], str], count: int, key: Callable[[str], str] = str.lower
) -> list[str]:
    """`count` words, no two of them with the same key."""
    found: dict[str, str] = {}
    while len(found) < count:
        made = make(d)
        found.setdefault(key(made), made)
    return list(found.values())


def separator(d: Draw) -> str:
    """What stands between items: mostly a comma and a space."""
    return d.choice([", ", ", ", ", ", ", ", ", ", " "])


def placed(d: Draw, forms: Sequence[str], **values: str) -> str:
    """The request: a wording, as people type it, with its values filled in."""
    return loosely(d, d.wording(forms)).format(**values)


_ORDERS = """arrange bring capitalize change convert count give list make order put reverse say sort start
tell transform turn use write""".split()


def with_material(*requests: str, last: Sequence[str]) -> list[str]:
    """Wordings from requests without their material: it comes after a colon or a line break, or before the
    request; orders are put politely as well. `last` are complete wordings, which stand at the end and so are
    not trained."""
    forms = []
    for request in requests:
        question = request.endswith("?")
        lead = request if question else f"{request}:"
        forms += [
            f"{lead} {{x}}",
            f"{lead} {{x}}",
            f"{lead}\n{{x}}",
            f"{{x}}\n{request}{'' if question else '.'}",
        ]
        if request.split()[0].lower() in _ORDERS and not question:
            order = lower_first(request)
            forms += [f"Please {order}: {{x}}", f"Can you {order}? {{x}}"]
    return [*forms, *last]


def _items(wanted: Sequence[str]) -> Callable[[Message], bool]:
    """As many items as are wanted, parted in any of the ways."""
    return lambda got: len(got["content"].replace(",", " ").split()) == len(wanted)


# ---- sort

SORT_WORDS = with_material(
    "Sort these words", "Sort these words alphabetically", "Sort the words", "Sort alphabetically",
    "Sort by name", "Sort", "Order these words alphabetically", "Order the words from A to Z",
    "Sort from A to Z", "Sort the list", "Put these words in alphabetical order", "Put the words in order",
    "Arrange these words alphabetically", "Sort this list of words", "Give these words in alphabetical order",
    "Can you sort these words?", "Could you put these words in order?",
    "What is the alphabetical order of these words?", "Alphabetical order", "Please sort",
    "Bring these words into alphabetical order", "List these words from A to Z", "Words to sort",
    "Write the words in alphabetical order", "I want these words sorted",
    last=[
        "Please put this list of words in alphabetical order: {x}",
        "Can you order these words from A to Z? {x}",
    ],
)  # fmt: skip
SORT_NUMBERS = with_material(
    "Sort these numbers", "Sort the numbers", "Sort the numbers in ascending order",
    "Sort from small to large", "Sort these numbers from smallest to largest",
    "Order these numbers from smallest to largest", "Sort ascending", "Put these numbers in ascending order",
    "Put the smallest number first", "Order the numbers from low to high",
    "Arrange these numbers in ascending order", "Can you sort these numbers?", "Sort this list of numbers",
    "Give these numbers in ascending order", "List these numbers from smallest to largest", "Numbers to sort",
    "I want these numbers sorted", "Write the numbers from small to large",
    last=[
        "Please put this list of numbers in ascending order: {x}",
        "Can you order these numbers from low to high? {x}",
    ],
)  # fmt: skip
SORT_DOWN = with_material(
    "Sort these numbers in descending order", "Sort the numbers in descending order",
    "Sort from large to small", "Sort these numbers from largest to smallest",
    "Order these numbers from largest to smallest", "Sort descending",
    "Put these numbers in descending order", "Put the largest number first",
    "Order the numbers from high to low", "Arrange these numbers in descending order",
    "Can you sort these numbers from high to low?", "Give these numbers in descending order",
    "List these numbers from largest to smallest", "Write the numbers from large to small",
    last=[
        "Please put this list of numbers in descending order: {x}",
        "Can you order these numbers from high to low? {x}",
    ],
)  # fmt: skip


def sort(d: Draw) -> Sample:
    """2 to 5 words whose first letters differ, or numbers below 100, in order."""
    count, between = d.choice([2, 3, 3, 3, 4, 4, 5]), separator(d)
    if d.chance(0.65):
        make = words.first_name if d.chance(0.2) else some_word
        given = different(d, make, count, key=lambda word: word[0].lower())
        forms, wanted = SORT_WORDS, sorted(given)
    else:
        most = d.choice([9, 20, 99, 99])
        numbers = d.some(range(1, most + 1), count, count)
        down = d.chance(0.35)
        forms, given = (SORT_DOWN if down else SORT_NUMBERS), [str(number) for number in numbers]
        wanted = [str(number) for number in sorted(numbers, reverse=down)]
    request = placed(d, forms, x=between.join(given))
    return framed(d, request, between.join(wanted), form=_items(wanted))


# ---- count

COUNT_WORDS = with_material(
    "How many words are here?", "How many words are in this sentence?", "How many words are there?",
    "Count the words", "Count these words", "How many words are in this text?",
    "How many words does this sentence have?", "Count the words in this sentence",
    "Count the words of this text", "Tell me how many words there are", "Give the number of words",
    "What is the number of words?", "Number of words", "How many words do you see?",
    "How many words has this line?", "Count all words", "Can you count the words?", "Word count",
    last=[
        "Please count all the words in this text: {x}",
        "Tell me how many words this sentence has: {x}",
    ],
)  # fmt: skip
COUNT_ITEMS = with_material(
    "How many items are here?", "How many items are in this list?", "Count the items", "Count the things",
    "Count the entries", "How many things are in this list?", "How many entries does this list have?",
    "Count the items in this list", "How long is this list?", "Give the number of items", "Number of items",
    "What is the number of items?", "Tell me how many items there are", "Count the things in the list",
    "How many items do you see?", "Can you count the items?", "How many are there?",
    last=[
        "Please count all the items in this list: {x}",
        "Tell me how many things this list has: {x}",
    ],
)  # fmt: skip


def count(d: Draw) -> Sample:
    """How many words or items there are, 1 to 9, the small numbers oftener; digits."""
    number = d.choice([1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 9])
    given = [some_word(d) for _ in range(number)]
    if number > 1 and d.chance(0.5):
        forms, text = COUNT_ITEMS, ", ".join(given)
    else:
        forms, text = COUNT_WORDS, " ".join(given)
        text = d.choice([text, text, f'"{text}"', f"{text.capitalize()}."])
    return framed(d, placed(d, forms, x=text), str(number), form=digits)


# ---- letters

UPPERCASE = with_material(
    "Uppercase", "Write in uppercase", "Write this in uppercase", "Write this in capital letters",
    "Make this uppercase", "Convert to uppercase", "Convert this text to uppercase",
    "Change this to uppercase", "Turn this into uppercase", "Put this in capital letters",
    "In uppercase, please", "In capital letters", "Use only capital letters",
    "Change all letters to capital letters", "Give me this in uppercase", "Can you write this in uppercase?",
    "Say it in uppercase", "Write these words in uppercase", "Transform to uppercase", "All caps",
    "To upper case", "How does this look in uppercase?", "Upper case",
    last=[
        "Please convert these words to uppercase: {x}",
        "Can you change this text to capital letters? {x}",
    ],
)  # fmt: skip
LOWERCASE = with_material(
    "Lowercase", "Write in lowercase", "Write this in lowercase", "Write this in small letters",
    "Make this lowercase", "Convert to lowercase", "Convert this text to lowercase",
    "Change this to lowercase", "Turn this into lowercase", "Put this in small letters",
    "In lowercase, please", "In small letters", "Use only small letters",
    "Change all letters to small letters", "Give me this in lowercase", "Can you write this in lowercase?",
    "Say it in lowercase", "Write these words in lowercase", "Transform to lowercase", "No caps",
    "To lower case", "How does this look in lowercase?", "Lower case",
    last=[
        "Please convert these words to lowercase: {x}",
        "Can you change this text to small letters? {x}",
    ],
)  # fmt: skip
CAPITALIZE = with_material(
    "Capitalize", "Capitalize each word", "Capitalize every word", "Capitalize the words",
    "Capitalize these words", "Capitalize this", "Capitalize this text",
    "Write each word with a capital first letter", "Capitalize all words",
    "Make the first letter of each word a capital", "Write every word with a capital letter first",
    "Title case", "Start each word with a capital letter", "Start every word with a capital",
    "Capitalize the first letter of each word", "Can you capitalize each word?", "Convert to title case",
    "Write this in title case", "Capitalize the first letters", "Give each word a capital first letter",
    "Change the first letter of every word to a capital", "In title case",
    last=[
        "Please capitalize every word of this text: {x}",
        "Can you capitalize the first letters of these words? {x}",
    ],
)  # fmt: skip


def _letters(
    d: Draw, forms: Sequence[str], given: Callable[[str], str], wanted: Callable[[str], str]
) -> Sample:
    """1 to 4 words, rewritten letter by letter."""
    text = " ".join(some_word(d) for _ in range(d.choice([1, 1, 2, 2, 3, 3, 4])))
    answer = wanted(text)
    request = placed(d, forms, x=given(text))
    return framed(d, request, answer, form=lambda got: got["content"] == wanted(got["content"]))


def _capitals(text: str) -> str:
    return " ".join(upper_first(word) for word in text.split(" "))


def uppercase(d: Draw) -> Sample:
    """All letters large: "quiet harbor" -> "QUIET HARBOR"."""
    return _letters(d, UPPERCASE, _capitals if d.chance(0.2) else str, str.upper)


def lowercase(d: Draw) -> Sample:
    """All letters small: "QUIET HARBOR" or "Quiet Harbor" -> "quiet harbor"."""
    return _letters(d, LOWERCASE, _capitals if d.chance(0.3) else str.upper, str.lower)


def capitalize(d: Draw) -> Sample:
    """The first letter of each word large: "quiet harbor" -> "Quiet Harbor"."""
    return _letters(d, CAPITALIZE, str, _capitals)


# ---- join

JOINED_BY = {
    "-": ["a dash", "dashes", "a hyphen", "hyphens", '"-"', "-"],
    ",": ["a comma", "commas", '","'],
    "_": ["an underscore", "underscores", '"_"', "_"],
    "/": ["a slash", "slashes", '"/"', "/"],
    "+": ["a plus", '"+"', "+"],
    ".": ["a dot", "dots", '"."'],
}
JOIN = [
    "Join with {by}: {x}", "Join these words with {by}: {x}", "Join the words with {by}: {x}",
    "Join with {by}:\n{x}", "Join these with {by}: {x}", "Join the items with {by}: {x}", "Join by {by}: {x}",
    "Join these words by {by}: {x}", "Connect these words with {by}: {x}", "Connect with {by}: {x}",
    "Combine the words with {by}: {x}", "Combine these words with {by}: {x}",
    "Put {by} between the words: {x}", "Put {by} between these words: {x}",
    "Write these words with {by} between them: {x}", "Write with {by} between the words: {x}",
    "Link with {by}: {x}", "Use {by} to join these words: {x}", "Use {by} to join: {x}",
    "With {by}, join these words: {x}", "{x}\nJoin these words with {by}.", "{x}\nJoin with {by}.",
    "{x}\nPut {by} between the words.", "Please join with {by}: {x}",
    "Please join these words with {by}: {x}", "Can you join these words with {by}? {x}",
    "Could you join with {by}: {x}", "Replace the spaces with {by}: {x}", "Change the spaces to {by}: {x}",
    "Make one word with {by}: {x}", "Take these words and join them with {by}: {x}",
    "I want {by} between these words: {x}", 'Join the words "{x}" with {by}.',
    "Join the words {x} with {by}.", "What is this joined with {by}? {x}",
    "Please connect the words with {by}: {x}", "Take these words and put {by} between them: {x}",
]  # fmt: skip


def join(d: Draw) -> Sample:
    """2 to 5 words with a mark between instead of the space."""
    mark = d.choice(["-", "-", ",", "_", "_", "/", "+", "."])
    given = [some_word(d) for _ in range(d.choice([2, 2, 3, 3, 4, 5]))]
    request = placed(d, JOIN, by=d.choice(JOINED_BY[mark]), x=" ".join(given))
    return framed(
        d,
        request,
        mark.join(given),
        form=lambda got: got["content"].count(mark) == len(given) - 1 and " " not in got["content"],
    )


# ---- which one

PLACES = ["first", "second", "third", "last", "first", "last"]
WHICH = [
    "What is the {place} {unit} of: {x}", "What is the {place} {unit}? {x}",
    "What is the {place} {unit} of {x}?", "What is the {place} {unit} in this list: {x}",
    "Which {unit} is {place}? {x}", "Which {unit} is {place}: {x}", "Which {unit} comes {place}? {x}",
    "Give the {place} {unit}: {x}", "Give the {place} {unit} of: {x}", "{place} {unit}: {x}",
    "Give me the {place} {unit} of this list: {x}", "Give only the {place} {unit}: {x}",
    "Return the {place} {unit}: {x}", "Tell me the {place} {unit}: {x}", "Tell me the {place} {unit} of: {x}",
    "Tell me which {unit} is {place}: {x}", "Write the {place} {unit}: {x}",
    "Write only the {place} {unit} of: {x}", "Take the {place} {unit}: {x}",
    "Take the {place} {unit} of this list: {x}", "Name the {place} {unit}: {x}",
    "Find the {place} {unit}: {x}", "Say the {place} {unit} of: {x}", "Pick the {place} {unit}: {x}",
    "Copy the {place} {unit} of: {x}", "{x}\nWhat is the {place} {unit}?", "{x}\nWhich {unit} is {place}?",
    "{x}\nGive the {place} {unit}.", "{x}\nTell me the {place} {unit}.",
    "Please give the {place} {unit}: {x}", "Please tell me the {place} {unit}: {x}",
    "Can you give the {place} {unit}? {x}", "Can you tell me the {place} {unit} of: {x}",
    "From this list, the {place} {unit}: {x}", "Here is a list: {x}. What is the {place} {unit}?",
    "Look at this list: {x}. Which {unit} is {place}?", "In the list {x}, what is the {place} {unit}?",
    "What {unit} is the {place}? {x}", "Please find the {place} {unit} of: {x}",
    "Can you tell me which {unit} comes {place}? {x}",
]  # fmt: skip


def which(d: Draw) -> Sample:
    """The first, last, second or third of 3 to 6 words or items."""
    place = d.choice(PLACES)
    make = d.choice(
        [some_word, some_word, words.first_name, words.city, lambda d: str(words.number(d)), words.string_of]
    )
    given = different(d, make, d.choice([3, 3, 4, 4, 5, 6]))
    if make is some_word and d.chance(0.5):
        unit, between = "word", " "
    else:
        unit, between = ("item" if make is not some_word or d.chance(0.5) else "word"), ", "
    wanted = given[{"first": 0, "second": 1, "third": 2, "last": -1}[place]]
    request = placed(d, WHICH, place=place, unit=unit, x=between.join(given))
    return framed(
        d, request, wanted, form=lambda got: ", " not in got["content"] and len(got["content"]) < 40
    )


# ---- reverse

REVERSE = with_material(
    "Reverse", "Reverse this list", "Reverse the list", "Reverse the order", "Reverse these words",
    "Reverse the words", "Reverse the order of this list", "Reverse the order of these words",
    "Write this list backwards", "Write these words backwards", "Turn this list around",
    "Give this list in reverse order", "Give the words in reverse order", "Write the list from last to first",
    "In reverse order", "From last to first", "Say these words in reverse order", "List these backwards",
    "Can you reverse this list?", "Backwards, please", "Can you reverse the words?",
    "What is this list in reverse order?", "Write the words in reverse order",
    last=[
        "Please write this list in reverse order: {x}",
        "Can you put these words in reverse order? {x}",
    ],
)  # fmt: skip


def reverse(d: Draw) -> Sample:
    """2 to 5 items from last to first."""
    number, between = d.choice([2, 3, 3, 3, 4, 4, 5]), separator(d)
    given = different(d, d.choice([some_word, some_word, some_word, words.first_name]), number)
    wanted = given[::-1]
    request = placed(d, REVERSE, x=between.join(given))
    return framed(d, request, between.join(wanted), form=_items(wanted))


ENTRIES = [
    Entry("sort", sort, bar=0.9, share=4.5),
    Entry("count", count, bar=0.9, share=3),
    Entry("uppercase", uppercase, bar=0.9, share=3),
    Entry("lowercase", lowercase, bar=0.9, share=3.4),
    Entry("capitalize", capitalize, bar=0.9, share=2.6),
    Entry("join", join, bar=0.9, share=1.6),
    Entry("first and last", which, bar=0.9, share=1.6),
    Entry("reverse", reverse, bar=0.9, share=2),
]
