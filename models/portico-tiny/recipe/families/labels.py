"""Labels: sentiment, topic, kind of message, yes or no. The answer is a label as the prompt spells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from recipe import words
from recipe.families.framing import framed, loosely
from recipe.sample import Draw, Entry, Sample
from recipe.words import prose, upper_first, with_article

# {labels} as in "a, b, c", {x} is the text; the last two of each list are not trained.
CLASSIFY = [
    "Classify this {unit} as {labels}: {x}", "Classify the {unit} as {labels}: {x}",
    "Classify as {labels}: {x}", "Classify this {unit} as {labels}:\n{x}", "Classify as {labels}.\n{x}",
    "Classify: {x}\nLabels: {labels}", "Classify this {unit}: {x}\nLabels: {labels}",
    "Labels: {labels}\n{Unit}: {x}", "Labels: {labels}\n{x}", "{Unit}: {x}\nLabels: {labels}",
    "{x}\nLabels: {labels}", "{x}\nClassify this {unit} as {labels}.", "{x}\nWhich label fits: {labels}?",
    "Which label fits this {unit}? {x}\nLabels: {labels}", "Which of these labels fits: {labels}? {x}",
    "Label this {unit} as {labels}: {x}", "Label the {unit} with {labels}: {x}",
    "Choose one of {labels} for this {unit}: {x}", "Choose one label ({labels}) for: {x}",
    "Choose a label: {labels}\n{x}", "Pick one of {labels}: {x}",
    "Pick a label for this {unit} ({labels}): {x}", "Is this {unit} {labels}? {x}",
    "Is the {unit} {labels}?\n{x}", "What is this {unit}: {labels}? {x}", "{labels}? {x}", "{x}\n{labels}?",
    "Give one label of {labels} for: {x}", "Give the label. Labels: {labels}. {Unit}: {x}",
    "One of {labels}: {x}", "Answer with one of {labels}. {Unit}: {x}", "Answer only with {labels}: {x}",
    "Please classify as {labels}: {x}", "Please label this {unit} as {labels}: {x}",
    "Can you classify this {unit} as {labels}? {x}", "Decide: {labels}? {x}",
    "Decide if this {unit} is {labels}: {x}", "Read this {unit} and choose {labels}: {x}",
    "Use one of the labels {labels}: {x}", "The labels are {labels}. Classify: {x}",
    "The labels are {labels}. Which one fits? {x}", 'Classify the {unit} "{x}" as {labels}.',
    'Is "{x}" {labels}?', 'Which label fits "{x}": {labels}?',
    "Please choose one of the labels {labels} for this {unit}: {x}",
    "Say which label fits this {unit}, {labels}: {x}",
]  # fmt: skip
SENTIMENT = [
    "What is the sentiment: {labels}? {x}", "What is the sentiment of this {unit} ({labels})? {x}",
    "Sentiment ({labels}): {x}", "Classify the sentiment as {labels}: {x}",
    "Classify the sentiment of this {unit} as {labels}: {x}", "Is the sentiment {labels}? {x}",
    "Give the sentiment ({labels}): {x}", "{x}\nSentiment: {labels}?", "{x}\nIs the sentiment {labels}?",
    "Sentiment labels: {labels}\n{Unit}: {x}", "Is this review {labels}? {x}",
    "Which sentiment has this {unit}: {labels}? {x}", "Find the sentiment, {labels}: {x}",
    "Say if this is {labels}: {x}", "Decide the sentiment ({labels}): {x}",
    "Classify the sentiment ({labels}).\n{x}", "Does this sound {labels}? {x}",
    "Label the sentiment as {labels}: {x}", "Please give the sentiment, {labels}: {x}",
    "Please classify the sentiment of this {unit} ({labels}): {x}",
    "Can you say if the sentiment is {labels}? {x}",
]  # fmt: skip
TOPIC = [
    "What is the topic: {labels}? {x}", "What is the topic of this {unit} ({labels})? {x}",
    "Topic ({labels}): {x}", "Classify the topic as {labels}: {x}",
    "Classify this {unit} by topic ({labels}): {x}", "Is the topic {labels}? {x}",
    "Give the topic ({labels}): {x}", "{x}\nTopic: {labels}?", "{x}\nIs the topic {labels}?",
    "Topics: {labels}\n{Unit}: {x}", "Which topic has this {unit}: {labels}? {x}",
    "Find the topic, {labels}: {x}", "Say if this is about {labels}: {x}",
    "Is this {unit} about {labels}? {x}", "What is this {unit} about: {labels}? {x}",
    "Category ({labels}): {x}", "Which category fits: {labels}? {x}",
    "Choose the category. Categories: {labels}. {Unit}: {x}", "Please give the topic, {labels}: {x}",
    "Decide the topic ({labels}): {x}", "Label the topic as {labels}: {x}",
    "Please classify the topic of this {unit} ({labels}): {x}",
    "Can you say if this {unit} is about {labels}? {x}",
]  # fmt: skip
KIND = [
    "What kind of {unit} is this: {labels}? {x}", "Which kind of {unit} is this, {labels}? {x}",
    "Kind ({labels}): {x}", "Classify the kind as {labels}: {x}", "Is it {labels}? {x}",
    "Give the kind ({labels}): {x}", "{x}\nKind: {labels}?", "{x}\nIs it {labels}?",
    "Kinds: {labels}\n{Unit}: {x}", "Find the kind, {labels}: {x}", "Say if this is {labels}: {x}",
    "Decide the kind ({labels}): {x}", "Label the kind as {labels}: {x}",
    "Please give the kind, {labels}: {x}", "Please classify the kind of this {unit} ({labels}): {x}",
    "Can you say if it is {labels}? {x}",
]  # fmt: skip

LABELS = ["{commas}", "{commas}", "{commas}", "{either}", "{either}", "{slashes}", "[{commas}]", "{quoted}"]


def _labelled(
    d: Draw, own_forms: Sequence[str], units: Sequence[str], kinds: Sequence[str], wanted: str, text: str
) -> Sample:
    """The question for `wanted` among `kinds`, in a drawn order and spelling."""
    spelling: Callable[[str], str] = d.choice([str, str, str, str, str.capitalize, str.upper])
    labels = [spelling(kind) for kind in d.shuffled(kinds)]
    listing = d.choice(LABELS).format(
        commas=", ".join(labels),
        either=prose(labels, "or"),
        slashes="/".join(labels),
        quoted=", ".join(f'"{label}"' for label in labels),
    )
    unit = d.choice(units)
    form = d.wording(CLASSIFY if d.chance(0.6) else own_forms)
    request = loosely(d, form).format(labels=listing, unit=unit, Unit=unit.capitalize(), x=text)
    return framed(d, request, spelling(wanted), form=lambda got: got["content"].strip() in labels)


# ---- sentiment

GOOD = """good great excellent wonderful fantastic amazing perfect lovely beautiful brilliant nice
superb pleasant delightful awesome outstanding delicious impressive enjoyable helpful charming""".split()
BAD = """bad terrible awful horrible poor disgusting disappointing boring ugly useless broken annoying
nasty dreadful unpleasant dirty painful worthless miserable rude horrid frustrating""".split()
# What can stand after "not" and is then bad.
DENIED = "good great nice helpful pleasant enjoyable beautiful impressive perfect delicious".split()
LIKED = ["love", "like", "enjoy", "adore", "really like", "really love"]
DISLIKED = ["hate", "dislike", "do not like", "don't like", "cannot stand", "really hate", "never liked"]
PLAIN = """square round wooden red blue green black white brown long short tall thick thin flat open
closed metal yellow gray""".split()
HOW = ["", "", "", "very ", "really ", "so ", "quite ", "absolutely "]
REVIEWED = """food service hotel film book room staff music game app phone trip meal coffee show team
story view product concert""".split()


def _subject(d: Draw) -> str:
    return words.noun(d) if d.chance(0.5) else d.choice(REVIEWED)


def _denied(d: Draw) -> str:
    """A good word with a "not" before it, which makes it bad."""
    denied = d.choice(["", "very "]) + d.choice(DENIED)
    return f"{d.choice(['the', 'this'])} {_subject(d)} {d.choice(['is', 'was'])} not {denied}"


def _valued(d: Draw, good: bool) -> str:
    """A sentence with a strong word, without a capital and a full stop."""
    strong, thing = d.choice(GOOD if good else BAD), _subject(d)
    if d.chance(0.25):
        felt = d.choice(LIKED if good else DISLIKED)
        return f"I {felt} {d.choice(['the', 'this', 'my', 'your'])} {thing}"
    how = d.choice(HOW)
    return d.choice(
        [
            f"the {thing} was {how}{strong}",
            f"the {thing} is {how}{strong}",
            f"this {thing} is {how}{strong}",
            f"what {with_article(f'{strong} {thing}')}",
            f"{how}{strong} {thing}",
            f"it was {with_article(f'{strong} {thing}')}",
            f"my {thing} in {words.city(d)} was {how}{strong}",
            f"{words.first_name(d)} says the {thing} is {how}{strong}",
            f"I think the {thing} is {how}{strong}",
            f"we had {with_article(f'{strong} {thing}')}",
            f"{how}{strong}",
        ]
    )


def _neutral(d: Draw) -> str:
    thing, other = words.noun(d), words.noun(d)
    return d.choice(
        [
            f"the {thing} is {d.choice(PLAIN)}",
            f"this {thing} is {d.choice(PLAIN)}",
            f"the {thing} is next to the {other}",
            f"the {thing} is in the {other}",
            f"there is a {d.choice(PLAIN)} {thing} on the table",
            f"I have the {thing}",
            f"{words.first_name(d)} lives in {words.city(d)}",
            f"{words.first_name(d)} has a {d.choice(PLAIN)} {thing}",
            f"the {thing} opens at {words.clock(d)}",
            f"the meeting is on {d.choice(words.DAYS)}",
            f"the {thing} has {d.integer(2, 99)} parts",
            f"we were in {words.city(d)} on {d.choice(words.DAYS)}",
            f"the {thing} is from {words.city(d)}",
            f"I bought the {thing} in {d.choice(words.MONTHS)}",
        ]
    )


def _sentence(d: Draw, text: str) -> str:
    """With a capital and a mark, mostly."""
    if d.chance(0.12):
        return text
    return upper_first(text) + d.choice([".", ".", ".", "!"])


_TWO = [["positive", "negative"], ["positive", "negative"], ["good", "bad"], ["happy", "unhappy"]]
_WITH_NEUTRAL = [["positive", "negative", "neutral"], ["good", "bad", "neutral"]]
_WITH_MIXED = [["positive", "negative", "mixed"], ["positive", "negative", "neutral", "mixed"]]


def _felt(d: Draw, kinds: list[str], wanted: str, text: str) -> Sample:
    units = ["text", "sentence", "review", "message"]
    return _labelled(d, SENTIMENT, units, kinds, wanted, _sentence(d, text))


def one_word_tells(d: Draw) -> Sample:
    """The first grade: one strong word or two of a kind, and two labels."""
    kinds, at = d.choice(_TWO), d.integer(0, 1)
    text = _valued(d, at == 0)
    if d.chance(0.25):
        text = f"{text} and {_valued(d, at == 0)}"
    return _felt(d, kinds, kinds[at], text)


def nothing_tells(d: Draw) -> Sample:
    """The second grade: what is neither good nor bad is neutral."""
    kinds, at = d.choice(_WITH_NEUTRAL), d.integer(0, 2)
    return _felt(d, kinds, kinds[at], _neutral(d) if at == 2 else _valued(d, at == 0))


def not_or_but(d: Draw) -> Sample:
    """The third grade: "not" turns a word round, and one good and one bad thing are mixed."""
    if d.chance(0.5):
        kinds = d.choice(_TWO + _WITH_NEUTRAL)
        good = d.chance(0.4)
        return _felt(d, kinds, kinds[0 if good else 1], _valued(d, True) if good else _denied(d))
    kinds = d.choice(_WITH_MIXED)
    at = d.choice([0, 1, 2, 2])
    first = d.chance(0.5)
    mixed = f"{_valued(d, first)}{d.choice([', but ', ' but '])}{_valued(d, not first)}"
    return _felt(d, kinds, "mixed" if at == 2 else kinds[at], mixed if at == 2 else _valued(d, at == 0))


# ---- topic

TOPICS = {
    "animal": """cat dog horse cow pig sheep goat rabbit mouse lion tiger elephant monkey bear wolf
        fox snake frog spider bee owl duck hen swan zebra""",
    "food": """bread cheese butter rice soup pizza potato tomato apple banana grape lemon cake onion
        carrot egg sausage salad sandwich noodles cherry pie honey""",
    "color": "red blue green yellow white black brown pink purple gray beige violet",
    "job": """doctor teacher pilot cook writer farmer nurse painter baker lawyer singer driver
        engineer plumber dentist judge actor tailor""",
    "city": """Paris London Rome Berlin Madrid Tokyo Vienna Oslo Cairo Moscow Dublin Lisbon Prague
        Athens Seoul Chicago""",
    "country": """France Germany Spain Italy Greece Turkey Poland Egypt India Japan Brazil China
        Canada Mexico Norway Peru""",
    "clothing": "shirt shoe hat coat sock dress jacket glove boot scarf skirt sweater",
    "tool": "hammer saw drill screwdriver axe shovel wrench rake ladder",
    "vehicle": "car bus train truck bicycle ship boat wagon tram motorcycle taxi",
    "music": "piano guitar violin drum flute trumpet song concert opera",
    "weather": "rain snow wind storm fog sunshine thunder hail",
    "sport": "football tennis basketball hockey golf swimming boxing volleyball baseball",
}
TOPIC_WORDS = {topic: listing.split() for topic, listing in TOPICS.items()}


def topic(d: Draw) -> Sample:
    """A word, or a sentence with one telling word, among 2 to 5 topics."""
    kinds = d.some(list(TOPIC_WORDS), 2, d.choice([2, 3, 3, 4, 5]))
    wanted = kinds[0]
    word = d.choice(TOPIC_WORDS[wanted])
    if d.chance(0.35):
        units, text = ["word"], word
    else:
        name = words.first_name(d)
        units = ["text", "sentence", "message"]
        text = d.choice(
            [
                f"I was thinking about {word} today.",
                f"{name} told me about {word}.",
                f"We talked about {word} for an hour.",
                f"Do you know the word {word}?",
                f"My favorite is {word}.",
                f"{name} wrote a long letter about {word}.",
                f"This book is about {word}.",
                f"{name} likes {word} more than I do.",
                f"The answer is {word}.",
                f"{name} and {words.first_name(d)} asked about {word} yesterday.",
                f"It was {word}, I am sure.",
                f"We saw {word} on {d.choice(words.DAYS)}.",
                f"Nobody said anything about {word}.",
                f"{name} chose {word}.",
            ]
        )
    return _labelled(d, TOPIC, units, kinds, wanted, text)


# ---- kinds of messages


def _spam(d: Draw) -> str:
    amount = d.choice([100, 500, 1000, 5000, 10000])
    return d.choice(
        [
            f"You won {amount} euros! Click here now!",
            "Click here to get your free prize!",
            f"Win {amount} dollars today!",
            f"Free {words.noun(d)}! Only today, click now!",
            "Congratulations, you are our winner! Claim your prize!",
            f"Get rich fast! Send {d.integer(5, 99)} euros now!",
            f"Cheap {words.noun(d)}s, buy now, limited offer!",
            f"Dear {words.first_name(d)}, you won a free trip to {words.city(d)}! Click here.",
            f"Make {amount} euros a day at home!",
            f"Claim your free {words.noun(d)} now!",
            "Limited offer! Buy now and win!",
            "You are a winner! Click the link!",
            f"Special offer: free {words.noun(d)} for every winner!",
            "Earn money fast, click the link now!",
        ]
    )


def _ham(d: Draw) -> str:
    name = words.first_name(d)
    return d.choice(
        [
            f"Hi {name}, see you on {d.choice(words.DAYS)}.",
            f"The meeting is at {words.clock(d)}.",
            f"{name} will call you later.",
            f"Can you send me the notes, {name}?",
            f"Thanks for the {words.noun(d)}, {name}.",
            "I will be late for lunch.",
            f"Please bring the {words.noun(d)} tomorrow.",
            f"Did you find the {words.noun(d)}?",
            "Here are the notes from the meeting.",
            f"Lunch at {words.clock(d)}?",
            f"{name} is in {words.city(d)} this week.",
            f"I left the {words.noun(d)} in your office.",
            f"Dear {name}, the report is ready.",
            "Let us meet after work.",
        ]
    )


def _urgent(d: Draw) -> str:
    thing = words.noun(d)
    return d.choice(
        [
            "The server is down!",
            f"Urgent: the {thing} is broken, help now!",
            "Nobody can log in!",
            f"The {thing} is on fire!",
            "All data is lost!",
            f"We need the {thing} immediately!",
            "The site is down for all customers!",
            f"Emergency in {words.city(d)}!",
            "Customers cannot pay, please fix this now!",
            f"The {thing} crashed, fix it now!",
            f"{words.first_name(d)} is hurt, call a doctor immediately!",
            "Critical error in production!",
        ]
    )


def _calm(d: Draw) -> str:
    thing = words.noun(d)
    return d.choice(
        [
            f"When you have time, please look at the {thing}.",
            "There is no hurry with this.",
            "A small typo on the last page.",
            f"Maybe we can paint the {thing} next year.",
            f"The {thing} could be a little larger some day.",
            f"It would be nice to have a new {thing} some day.",
            "No rush, next month is fine.",
            f"The color of the {thing} is a detail.",
            f"Some time next year {words.first_name(d)} would like a {thing}.",
            "Whenever you like, clean up the list.",
            f"An idea for later: a {thing} in {words.city(d)}.",
            "This can wait until next week.",
        ]
    )


def _question(d: Draw) -> str:
    thing = words.noun(d)
    return d.choice(
        [
            f"Where is the {thing}?",
            f"Who has the {thing}?",
            f"When does the {thing} open?",
            f"Why is the {thing} {d.choice(PLAIN)}?",
            f"Does {words.first_name(d)} live in {words.city(d)}?",
            f"Is the {thing} {d.choice(PLAIN)}?",
            f"How old is the {thing}?",
            f"Do you have a {thing}?",
            f"What is a {thing}?",
            f"Can {words.first_name(d)} see the {thing}?",
        ]
    )


def _command(d: Draw) -> str:
    thing = words.noun(d)
    return d.choice(
        [
            f"Open the {thing}!",
            f"Close the {thing}.",
            f"Bring me the {thing}.",
            f"Go to {words.city(d)}.",
            f"Clean the {thing} now!",
            f"Take the {thing} to {words.first_name(d)}.",
            f"Put the {thing} on the table.",
            f"Call {words.first_name(d)}!",
            f"Stop the {thing}!",
            f"Give the {thing} to {words.first_name(d)}.",
            f"Buy a {d.choice(PLAIN)} {thing}.",
        ]
    )


def _statement(d: Draw) -> str:
    return f"{upper_first(_neutral(d))}."


_SETS: list[dict[str, Callable[[Draw], str]]] = [
    {"spam": _spam, "ham": _ham},
    {"spam": _spam, "not spam": _ham},
    {"high": _urgent, "low": _calm},
    {"urgent": _urgent, "not urgent": _calm},
    {"question": _question, "command": _command, "statement": _statement},
    {"question": _question, "statement": _statement},
]


def message_kind(d: Draw) -> Sample:
    """Spam or ham, urgent or not, question or command or statement."""
    kinds = d.choice(_SETS)
    wanted = d.choice(list(kinds))
    units = ["message", "mail", "text"] if "question" not in kinds else ["sentence", "text"]
    return _labelled(d, KIND, units, list(kinds), wanted, kinds[wanted](d))


# ---- yes or no

KINDS_OF_THINGS = ["animal", "color", "job", "city", "country", "tool", "vehicle", "sport"]
IS_IT = [
    "Is {a_word} {a_kind}?", "Is {a_word} {a_kind}?", "Is {word} {a_kind}?", "Is {a_word} really {a_kind}?",
    "{word}: is it {a_kind}?", "Is this {a_kind}: {word}?", "Is {a_word} {a_kind} or not?",
    "Tell me if {a_word} is {a_kind}.", "Would you call {a_word} {a_kind}?", "Say if {a_word} is {a_kind}.",
    "Question: is {a_word} {a_kind}?", "Do you think {a_word} is {a_kind}?", "{a_word} is {a_kind}, right?",
    "Is it true that {a_word} is {a_kind}?", "Can {a_word} be {a_kind}?",
    "Please tell me: is {a_word} {a_kind}?", "Decide if {a_word} is {a_kind}.", "Does {word} mean {a_kind}?",
    "{word}, is that {a_kind}?", "Is it right that {a_word} is {a_kind}?",
    "Question: would you call {a_word} {a_kind}?",
]  # fmt: skip
# An instruction and how it wants the answers spelled.
YES_OR_NO = [
    ("", ("Yes.", "No.")), ("", ("Yes.", "No.")), ("", ("Yes.", "No.")),
    (" Answer yes or no.", ("yes", "no")), (" yes or no?", ("yes", "no")),
    (" Only yes or no.", ("yes", "no")), (" Answer Yes or No.", ("Yes", "No")), (" (Yes/No)", ("Yes", "No")),
    (" (yes/no)", ("yes", "no")), (" Answer with true or false.", ("true", "false")),
    (" true or false?", ("true", "false")), (" Answer YES or NO.", ("YES", "NO")),
]  # fmt: skip


def yes_or_no(d: Draw) -> Sample:
    """Whether a known thing is of a kind; without an instruction the answer is "Yes." or "No."."""
    kind = d.choice(KINDS_OF_THINGS)
    other = d.choice([name for name in TOPIC_WORDS if name != kind])
    true = d.chance(0.5)
    word = d.choice(TOPIC_WORDS[kind if true else other])
    # Names, colours and what cannot be counted stand without an article.
    bare = word[0].isupper() or (kind if true else other) in ("color", "food", "weather", "sport", "music")
    form = d.wording(IS_IT).format(
        word=word, a_word=word if bare else with_article(word), a_kind=with_article(kind)
    )
    after, (yes, no) = d.choice(YES_OR_NO)
    request = upper_first(form) + after
    if d.chance(0.1) and not word[0].isupper():
        request = words.lower_first(request)
    return framed(d, request, yes if true else no, form=lambda got: got["content"].strip() in (yes, no))


ENTRIES = [
    Entry("sentiment: one word tells", one_word_tells, bar=0.9, share=0.9),
    Entry("sentiment: or neutral", nothing_tells, bar=0.9, share=1.2),
    Entry("sentiment: not, but", not_or_but, bar=0.9, share=1.2),
    Entry("topic", topic, bar=0.9, share=1.4),
    Entry("kind of message", message_kind, bar=0.9, share=1.2),
    Entry("yes or no", yes_or_no, bar=0.9, share=2.5),
]
