"""Tools: which one to call and with what, when to call none, and what to say of a result.

A call's arguments are copied from the request into the parameters that the tool's definition names, in the
definition's order. What is said of a result or a failure stands in tool_results.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from recipe import words
from recipe.families.chat import HELLO, THANKS
from recipe.families.framing import HELP, UNKNOWN, WELCOME
from recipe.families.json_answers import before
from recipe.families.json_facts import plain_value
from recipe.families.known_tools import KINDS
from recipe.families.tool_requests import (
    Asked,
    Defined,
    ask,
    defined,
    forms_of,
    invented_tool,
    large_size,
    requests,
    shown,
    size,
    tool_box,
)
from recipe.families.tool_results import earlier, failure, outcome, together
from recipe.sample import (
    Draw,
    Entry,
    Family,
    Message,
    Sample,
    Tool,
    called,
    calls,
    result,
    says,
    says_json,
    user,
)
from recipe.words import upper_first

_WITH_NUMBERS = ("add", "multiply", "count_words")


def _ends(call: Message) -> Callable[[Message], bool]:
    """A short answer in one line of text that calls nothing."""
    return lambda message: (
        "\n" not in message["content"] and len(message["content"]) < 60 + 2 * len(call["content"])
    )


def _spoken(messages: Sequence[Message], tools: Sequence[Tool]) -> Sample:
    return Sample(messages, tools=tools, form=_ends(messages[-1]))


def choose(d: Draw) -> Sample:
    """One tool of several, and its arguments; sometimes after one or two rounds with the same tools."""
    rounds = d.choice([1] * 14 + [2, 2, 3])
    asked, tools = requests(d, rounds, large_size)
    last = asked[-1]
    return Sample(
        [*before(d), *earlier(d, asked[:-1]), user(last.text), calls((last.name, last.arguments))],
        tools=tools,
    )


_BARE_ASKS = {
    "get_weather": ["the weather", "weather", "weather information"],
    "get_time": ["the time", "the current time"],
    "get_price": ["the price", "a price"],
    "lookup_user": ["a user", "the user"],
    "play_song": ["a song", "some music"],
    "read_file": ["a file", "the file"],
}
_BARE_QUESTIONS = {
    "get_weather": [
        "What's the weather like?",
        "What is the weather?",
        "How is the weather?",
        "What's the weather?",
        "What is the weather like?",
        "How is the weather today?",
        "what's the weather like",
        "Weather?",
    ],
    "get_time": ["What time is it?", "What is the time?", "How late is it?", "Time?"],
    "get_price": ["What is the price?", "How much is it?", "What does it cost?"],
    "lookup_user": ["Who is the user?", "Which user is it?", "Look up the user."],
    "play_song": ["Play a song.", "Can you play a song?", "Play music."],
    "read_file": ["Read the file.", "What is in the file?", "Open the file."],
}
_BARE_FORMS = [
    f"{start} {{x}}{end}"
    for start in [
        "Tell me about",
        "Please get",
        "I need",
        "I want",
        "Can you get me",
        "Get me",
        "Could you get",
        "Give me",
        "Show me",
        "I'd like",
        "I would like to have",
        "I would like to know",
        "I would really like",
        "I would love",
        "Hello! I need",
        "Hello! Get me",
        "Hello, I want to have",
        "Hi, I want",
        "Hi! Please get",
    ]
    for end in ["", ".", "!", ", please."]
]


def ask_back(d: Draw) -> Sample:
    """A request that leaves out the one thing that the tool must know: the assistant asks for it."""
    boxed = tool_box(d, d.choice([0, 1, 1, 1, 2]), without=list(_BARE_ASKS))
    about = d.choice(["get_weather", "get_weather", *_BARE_ASKS])
    kind = next(each for each in KINDS if each.name == about)
    tool = defined(d, kind)
    thing = d.choice(_BARE_ASKS[about])
    forms = [
        *_BARE_QUESTIONS[about] * 5,
        *(form.format(x=thing) for form in _BARE_FORMS),
        # never trained:
        f"Hello! I want {thing}, please.",
        f"I would like {thing}.",
    ]
    missing = tool.named[kind.parameters[0].slot].replace("_", " ")
    tools = d.shuffled([tool.tool, *(each.tool for each in boxed)])
    messages = [*before(d), user(d.wording(forms)), says(f"Which {missing}?")]
    if d.chance(0.25):  # and then the user says it
        value = kind.parameters[0].draw(d)
        said = d.choice(["{v}", "{v}.", "{v}, please.", "In {v}." if missing == "city" else "{v}!"]).format(
            v=value
        )
        messages += [user(said), calls((tool.name, {tool.named[kind.parameters[0].slot]: value}))]
        return Sample(messages, tools=tools)
    return _spoken(messages, tools)


_UNKNOWN = [
    "name of my {t}",
    "name of my {p}",
    "color of my {t}",
    "age of my {p}",
    "birthday of my {p}",
    "size of my {t}",
]
_PEOPLE = "cat dog friend sister brother teacher mother father doctor".split()


_SUMS = [
    "What is {a} + {b}?", "What is {a}+{b}?", "{a} + {b}", "{a}+{b}=", "{a} + {b} =", "{a} plus {b}?",
    "How much is {a} + {b}?", "what is {a} + {b}", "Add {a} and {b}.", "What is {a} plus {b}?",
    "Please add {a} and {b}.", "How much is {a} plus {b}?", "What's {a} + {b}?", "What's {a}+{b}?",
    "Tell me {a} + {b}.", "What is the sum of {a} and {b}?", "Find the sum of {a} and {b}.",
    "Give the sum of {a} and {b}.", "Can you add {a} and {b}?",
    # never trained:
    "Give me the sum of the numbers {a} and {b}.", "How much do {a} and {b} make?",
]  # fmt: skip
_OF_MINE = [
    "What is the {x}?", "what is the {x}?", "Tell me the {x}.", "Please tell me the {x}.", "What's the {x}?",
    "Do you know the {x}?", "Can you tell me the {x}?", "I want to know the {x}.", "The {x}?", "Say the {x}.",
    "What was the {x}?", "Hi, what is the {x}?",
    # never trained:
    "Hi, do you know the {x}?", "Hello, can you tell me the {x}?",
]  # fmt: skip
_REPEAT = [
    "Repeat: {x}", "Repeat this: {x}", "Say: {x}", "Please repeat: {x}", 'Repeat "{x}"', 'Say "{x}"',
    "Repeat after me: {x}", "Say this: {x}", 'Please say "{x}"', "repeat: {x}", "Can you repeat this: {x}",
    "Repeat the text: {x}", "I want you to say: {x}", "Please repeat this: {x}",
    # never trained:
    "I want you to repeat this: {x}", "Repeat what I say: {x}",
]  # fmt: skip


def none(d: Draw) -> Sample:
    """Tools are there, but what the user says needs none: the answer is the one without tools."""
    boxed = tool_box(d, size(d), without=_WITH_NUMBERS)
    tools = [each.tool for each in boxed] + ([invented_tool(d)[0]] if d.chance(0.2) else [])
    kind = d.choice(["hello", "thanks", "sum", "unknown", "repeat"])
    if kind == "hello":
        text, said = d.wording(HELLO), f"Hello! {HELP}"
    elif kind == "thanks":
        text, said = d.wording(THANKS), WELCOME
    elif kind == "sum":
        a, b = d.integer(0, 9), d.integer(0, 9)
        text, said = d.wording(_SUMS).format(a=a, b=b), str(a + b)
    elif kind == "unknown":
        about = d.choice(_UNKNOWN).format(t=words.noun(d), p=d.choice(_PEOPLE))
        text, said = d.wording(_OF_MINE).format(x=about), UNKNOWN
    else:
        said = plain_value(d) if d.chance(0.5) else words.phrase(d, 1, 5)
        text = d.wording(_REPEAT).format(x=said)
    history = before(d)
    if d.chance(0.4 if kind == "thanks" else 0.1):
        history += earlier(d, [ask(d, boxed[0])])
    return _spoken([*history, user(text), says(said)], tools)


class Several(NamedTuple):
    """A request that wants several calls in one turn."""

    text: str
    asked: list[Asked]
    tools: list[Tool]


_TWO = [
    "{a} and {b}.",
    "{A} and {b}",
    "Please {a} and {b}.",
    "{A} and {b}.",
    "Can you {a} and {b}?",
    "{A}, and {b}.",
    "Could you {a} and {b}?",
    "I want you to {a} and {b}.",
    "Please {a} and also {b}.",
    "{A} and also {b}.",
    "Do two things: {a}, {b}.",
    "Two tasks: {a} and {b}.",
    "{A}. Also {b}.",
    "Please {a}. Also {b}.",
    "Two things: {a} and {b}.",
    "Do two things for me: {a} and {b}.",
    "Do these two things: {a} and {b}.",
    "Please do this: {a} and {b}.",
    "Please do both: {a}, and {b}.",
    "I want this: {a} and {b}.",
    "I need two things: {a}, and {b}.",
    # never trained:
    "Please do two things: {a} and {b}.",
    "I want two things: {a} and {b}.",
]


def two_orders(d: Draw, boxed: Sequence[Defined]) -> tuple[list[Asked], list[str]]:
    """What the first two tools are asked for, and the orders that a longer sentence puts together."""
    asked, parts = [], []
    for each in boxed[:2]:
        one = ask(d, each)
        parts.append(
            d.choice(each.kind.orders).format(**{key: shown(key, value) for key, value in one.slots.items()})
        )
        arguments = {each.named[p.slot]: one.slots[p.slot] for p in each.kind.parameters if not p.tail}
        asked.append(one._replace(arguments=arguments))
    return asked, parts


def several(d: Draw) -> Several:
    """One tool for two or three values, or two tools for one each."""
    if d.chance(0.55):
        kind = d.choice([each for each in KINDS if each.many])
        tool = defined(d, kind)
        first = kind.parameters[0]
        values = list(dict.fromkeys(first.draw(d) for _ in range(d.choice([2, 2, 2, 3]))))
        text = d.wording(forms_of(kind)).format(
            **{first.slot: words.listing(d, [str(each) for each in values])}
        )
        asked = [
            Asked("", tool.name, {tool.named[first.slot]: each}, kind, {first.slot: each}) for each in values
        ]
        others = tool_box(d, size(d) - 1, without=[kind.name])
        return Several(text, asked, d.shuffled([tool.tool, *(each.tool for each in others)]))
    boxed = tool_box(d, d.choice([2, 2, 3]))
    asked, parts = two_orders(d, boxed)
    text = d.wording(_TWO).format(a=parts[0], b=parts[1], A=upper_first(parts[0]))
    return Several(text, asked, d.shuffled([each.tool for each in boxed]))


def parallel(d: Draw) -> Sample:
    """Two or three calls in one turn, in the order of the request."""
    want = several(d)
    return Sample(
        [*before(d), user(want.text), calls(*((each.name, each.arguments) for each in want.asked))],
        tools=want.tools,
    )


def answered(d: Draw, want: Several) -> Sample:
    """The calls of a request, their results, and what is said of them."""
    told = [outcome(d, each) for each in want.asked]
    return _spoken(
        [
            *before(d),
            user(want.text),
            calls(*((each.name, each.arguments) for each in want.asked)),
            *(result(got, at) for at, (got, _) in enumerate(told)),
            says(together([said for _, said in told])),
        ],
        want.tools,
    )


def answer(d: Draw) -> Sample:
    """After the result, or after several, what is said of it."""
    if d.chance(0.3):
        return answered(d, several(d))
    rounds = d.choice([1] * 12 + [2, 3])
    asked, tools = requests(d, rounds)
    last = asked[-1]
    got, said = outcome(d, last)
    return _spoken(
        [
            *before(d),
            *earlier(d, asked[:-1]),
            user(last.text),
            calls((last.name, last.arguments)),
            result(got),
            says(said),
        ],
        tools,
    )


def error(d: Draw) -> Sample:
    """After a failure: which tool failed, and its message."""
    (asked,), tools = requests(d, 1)
    got, said = failure(d, asked)
    return _spoken(
        [*before(d), user(asked.text), calls((asked.name, asked.arguments)), result(got), says(said)], tools
    )


_FIRST_THEN = [
    "First {a}, then {b}.",
    "First {a}. Then {b}.",
    "{A}, then {b}.",
    "{A}. Then {b}.",
    "Please first {a}, then {b}.",
    "First {a} and then {b}.",
    "Step 1: {a}. Step 2: {b}.",
    "1. {A}\n2. {B}",
    "Can you first {a} and then {b}?",
    "I want you to first {a}, then {b}.",
    "{A} and then {b}.",
    "Please {a}, then {b}.",
    "First {a}, after that {b}.",
    # never trained:
    "{A}. After that, {b}.",
    "I want you to {a}. Then {b}.",
]


def steps(d: Draw) -> Sample:
    """ "First ..., then ...": one call a turn, each after the result of the one before, then what is said."""
    boxed = tool_box(d, d.choice([2, 2, 2, 3]))
    asked, parts = two_orders(d, boxed)
    text = d.wording(_FIRST_THEN).format(
        a=parts[0], b=parts[1], A=upper_first(parts[0]), B=upper_first(parts[1])
    )
    messages = [*before(d), user(text)]
    told = [outcome(d, each) for each in asked]
    for one, (got, _) in zip(asked, told, strict=True):
        messages += [calls((one.name, one.arguments)), result(got)]
    tools = d.shuffled([each.tool for each in boxed])
    messages.append(says(together([said for _, said in told])))
    cut = d.choice([0, 0, 2])  # the answer that is measured is the last step's call, or what is said
    return Sample(messages[: len(messages) - cut], tools=tools) if cut else _spoken(messages, tools)


def or_forced(make: Family) -> Family:
    """Now and then in the training the call as vLLM's grammar forces it where a client demands a call: a
    list of calls with "parameters", or the arguments alone. The grammar writes the opening, which is what
    tells the model."""

    def made(d: Draw) -> Sample:
        sample = make(d)
        wanted = called(sample.answer)
        if not d.training or not wanted or not d.chance(0.15):
            return sample
        forced: Any = [{"name": name, "parameters": arguments} for name, arguments in wanted]
        begun = '[{"'
        if len(wanted) == 1 and wanted[0][1] and d.chance(0.5):
            forced, begun = wanted[0][1], '{"'
        return replace(sample, messages=[*sample.prompt, says_json(forced)], opening=begun)

    return made


def thoughtful(d: Draw) -> Sample:
    """Thinking switched on among tools: which one fits, or that none does, and then the call or the answer."""
    sample = d.choice([choose, choose, choose, none])(d)
    wanted = called(sample.answer)
    thought = f"{wanted[0][0]} fits." if wanted else "No tool fits."
    return replace(
        sample, messages=[*sample.prompt, {**sample.answer, "reasoning_content": thought}], thinking=True
    )


ENTRIES: list[Entry] = [
    Entry("tool: choose", or_forced(choose), bar=0.95, share=5),
    Entry("tool: after a thought", thoughtful, bar=0.95, share=1.5),
    Entry("tool: none", none, bar=0.95, share=1.5),
    Entry("tool: ask back", ask_back, bar=0.95, share=1.4),
    Entry("tool: parallel", or_forced(parallel), bar=0.95, share=5),
    Entry("tool: steps", or_forced(steps), bar=0.95, share=2),
    Entry("tool: answer", answer, bar=0.95, share=4),
    Entry("tool: error", error, bar=0.95, share=1.2),
]
