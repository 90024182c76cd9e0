"""Long documents that are neither pairs nor sentences: a file of small functions, a log."""

from __future__ import annotations

from collections.abc import Callable

from recipe import words
from recipe.families.framing import UNKNOWN, styled
from recipe.families.quiz import Distinct, Quiz, Room, Unequal, several
from recipe.families.quiz_facts import GENERAL, GENERAL_UNSEEN, alone
from recipe.families.quiz_pairs import long_number, short_number
from recipe.sample import Draw

RETURNED = [
    "What does {k} return?",
    "What does {k}() return?",
    "What does the function {k} return?",
    "Which value does {k} return?",
    "Which value does the function {k} return?",
    "What is the value that {k} returns?",
    "What is returned by {k}?",
    "Tell me what {k} returns.",
    "Tell me what the function {k} returns.",
    "Say what {k} returns.",
    "Find the value that {k} returns.",
    "Give the value that {k} returns.",
    "Look up what {k} returns.",
    "The function {k} returns what?",
    "I want to know what {k} returns.",
    "Do you know what {k} returns?",
    "Give me the value that the function {k} returns.",
    "Tell me which value {k} returns.",
]


def code(d: Draw, room: Room) -> Quiz:
    """A file of small functions that return constants."""
    distinct, unequal = Distinct(d), Unequal(d)

    def drawn() -> tuple[str, str]:
        value = unequal(d.choice([long_number, words.string_of]))
        return distinct(words.identifier), value

    def shown(pair: tuple[str, str]) -> str:
        constant = pair[1] if pair[1].isdecimal() and str(int(pair[1])) == pair[1] else f'"{pair[1]}"'
        return f"def {pair[0]}():\n    return {constant}\n"

    found = room.fill(drawn, shown)

    def ask() -> tuple[str, str]:
        key, value = d.choice(found)
        if d.chance(0.1):
            key, value = distinct(words.identifier), UNKNOWN
        return styled(d, d.wording(RETURNED)).replace("{k}", key), value

    return Quiz([shown(pair) for pair in found], several(d, room, ask))


def records(d: Draw, room: Room) -> Quiz:
    """Log lines: a time, a level, and fields of which the first tells the line apart."""
    made = {
        "user": words.first_name,
        "file": words.file_name,
        "status": short_number,
        "city": words.city,
        "action": words.verb,
        "size": long_number,
    }
    labels = d.some(list(made), 2, 4)
    distinct = Distinct(d)
    first = d.choice(["id", "job", "request", "task"])
    clock = d.integer(0, 30000)

    def key(d: Draw) -> str:
        return d.choice([words.letters(d, 4, 6), words.invented(d, (2, 3)), words.string_of(d)])

    def drawn() -> tuple[str, str, dict[str, str]]:
        nonlocal clock
        clock += d.integer(1, 40)
        time = f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"
        head = f"{time} {d.choice(['INFO', 'INFO', 'WARN', 'ERROR'])}"
        return head, distinct(key), {label: made[label](d) for label in labels}

    def shown(item: tuple[str, str, dict[str, str]]) -> str:
        head, who, known = item
        return f"{head} {first}={who} " + " ".join(f"{label}={value}" for label, value in known.items())

    found = room.fill(drawn, shown)
    forms = [*GENERAL, "Which {a} stands in the line of {e}?", "Which {a} is listed for {e}?", GENERAL_UNSEEN]

    def ask() -> Callable[[], tuple[str, str]]:
        _, who, known = d.choice(found)
        label = d.choice(labels)
        alone(known, [each for _, _, each in found], label, lambda: made[label](d))
        return lambda: put(who, label, known[label])

    def put(who: str, label: str, value: str) -> tuple[str, str]:
        if d.chance(0.1):
            who, value = distinct(key), UNKNOWN
        form = styled(d, d.wording(forms))
        return form.replace("{a}", label).replace("{e}", f"{first} {who}"), value

    asks = several(d, room, ask)
    return Quiz([shown(item) for item in found], [each() for each in asks])
