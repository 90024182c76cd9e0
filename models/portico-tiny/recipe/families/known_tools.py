"""The tools that are known: what they are called, what they take, and how they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from recipe import words
from recipe.families.json_facts import decimal
from recipe.sample import Draw


class Parameter(NamedTuple):
    """A parameter: its names (one is drawn), JSON type or the values it may have, and how to draw it. With a
    `tail` it is optional, and the tail is what a request says of it at its end."""

    names: str
    kind: str | tuple[str, ...]
    draw: Callable[[Draw], Any]
    about: str
    tail: str = ""

    @property
    def slot(self) -> str:
        return self.names.split()[0]


@dataclass(frozen=True)
class Kind:
    """A known tool. Requests: `orders` go into many sentences ("Please ...", "Can you ...?"), `questions`
    and `notes` (no sentences) into others, the two `unseen` are never trained. `result` says what it gives
    back (see `outcome`)."""

    name: str
    about: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    orders: tuple[str, ...]
    questions: tuple[str, ...]
    unseen: tuple[str, str]
    result: str = "words"
    many: bool = False  # can be asked for several values of its first parameter at once
    notes: tuple[str, ...] = ()

    def named(self, d: Draw) -> str:
        """Its name, or one of those that others give such a tool."""
        return d.choice(OTHER_NAMES[self.name]) if self.name in OTHER_NAMES and d.chance(0.3) else self.name


OTHER_NAMES = {
    "get_weather": ["weather", "get_current_weather", "current_weather", "check_weather"],
    "get_time": ["time", "current_time", "get_current_time"],
    "add": ["sum", "add_numbers"],
    "multiply": ["product", "multiply_numbers"],
    "search_web": ["search", "web_search", "internet_search"],
    "send_mail": ["send_email", "mail", "email"],
    "read_file": ["open_file", "read", "cat"],
    "write_file": ["save_file", "write"],
    "delete_file": ["remove_file", "delete"],
    "set_timer": ["timer", "start_timer"],
    "convert": ["convert_money", "exchange"],
    "create_event": ["add_event", "new_event"],
    "lookup_user": ["get_user", "find_user"],
    "book_flight": ["flight", "get_flight"],
    "play_song": ["play", "play_music"],
    "get_price": ["price", "find_price"],
    "add_task": ["new_task", "todo"],
    "get_news": ["news", "latest_news"],
    "call_person": ["phone", "make_call"],
}


def one_of(*values: str) -> tuple[tuple[str, ...], Callable[[Draw], str]]:
    return values, lambda d: d.choice(values)


def _small(low: int, high: int) -> Callable[[Draw], int]:
    return lambda d: d.integer(low, high)


def _short_phrase(d: Draw) -> str:
    return words.phrase(d, 1, 3)


_CITY = Parameter("city location place", "string", words.city, "Name of the city")
_PATH = Parameter("path file file_path", "string", words.path, "Path of the file")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF")

KINDS = [
    Kind(
        "get_weather",
        ("Get the weather in a city.", "Get the current weather", "Weather of a city", ""),
        (_CITY, Parameter("unit units", *one_of("celsius", "fahrenheit"), "Unit", " in {unit}")),
        (
            "tell me the weather in {city}",
            "check the weather in {city}",
            "get the weather for {city}",
            "show the weather in {city}",
            "find out the weather in {city}",
        ),
        (
            "what is the weather in {city}",
            "what's the weather like in {city}",
            "how is the weather in {city}",
            "weather in {city}",
            "what is the weather like in {city}",
            "what's the weather in {city}",
        ),
        ("Can you show me the weather for {city}?", "What is the current weather in {city}?"),
        "weather",
        True,
    ),
    Kind(
        "get_time",
        ("Get the time in a city.", "Current time of a place", "What time it is somewhere"),
        (_CITY,),
        (
            "tell me the time in {city}",
            "get the current time in {city}",
            "find out what time it is in {city}",
        ),
        (
            "what time is it in {city}",
            "what is the time in {city}",
            "time in {city}",
            "how late is it in {city}",
        ),
        ("Can you show me the time in {city}?", "What is the current time in {city}?"),
        "clock",
        True,
    ),
    Kind(
        "add",
        ("Add two numbers.", "Sum of two numbers", "Adds a and b"),
        (
            Parameter("a x first", "number", _small(0, 999), "First number"),
            Parameter("b y second", "number", _small(0, 999), "Second number"),
        ),
        ("add {a} and {b}", "add {a} to {b}", "find the sum of {a} and {b}", "compute {a} + {b}"),
        ("what is {a} + {b}", "what is {a} plus {b}", "how much is {a} + {b}", "{a} + {b}"),
        ("Give me the sum of {a} and {b}.", "Please tell me how much {a} plus {b} is."),
        "number",
    ),
    Kind(
        "multiply",
        ("Multiply two numbers.", "Product of two numbers"),
        (
            Parameter("a x first", "number", _small(0, 999), "First number"),
            Parameter("b y second", "number", _small(0, 999), "Second number"),
        ),
        (
            "multiply {a} by {b}",
            "multiply {a} and {b}",
            "compute {a} * {b}",
            "find the product of {a} and {b}",
        ),
        ("what is {a} * {b}", "what is {a} times {b}", "how much is {a} times {b}", "{a} * {b}"),
        ("Give me the product of {a} and {b}.", "Please tell me how much {a} times {b} is."),
        "number",
    ),
    Kind(
        "search_web",
        ("Search the web.", "Search for pages on the internet", "Web search"),
        (Parameter("query text", "string", _short_phrase, "What to search for"),),
        (
            "search the web for {query}",
            "search for {query}",
            "look up {query} on the web",
            "find pages about {query}",
            "search the internet for {query}",
        ),
        ("what does the web say about {query}", "what can you find on the web about {query}"),
        ("Look on the internet for {query}.", "Can you find something on the web about {query}?"),
    ),
    Kind(
        "send_mail",
        ("Send a mail.", "Send an email to somebody", "Sends mail"),
        (
            Parameter("to recipient", "string", words.email, "Address"),
            Parameter("subject", "string", _short_phrase, "Subject"),
            Parameter("body text", "string", _short_phrase, "Text of the mail"),
        ),
        (
            'send a mail to {to} with the subject "{subject}" and the text "{body}"',
            "mail {to} with the subject {subject} and the text {body}",
            'write an email to {to}, subject "{subject}", body "{body}"',
            "send an email to {to} with subject {subject} and body {body}",
        ),
        (),
        (
            'Email to {to}, subject "{subject}", text "{body}"',
            "Write to {to} with the subject {subject} and the body {body}.",
        ),
        "done",
    ),
    Kind(
        "read_file",
        ("Read a file.", "Reads a text file", "Get what is in a file"),
        (_PATH,),
        (
            "read {path}",
            "read the file {path}",
            "open {path}",
            "show me the file {path}",
            "show what is in {path}",
        ),
        (
            "what is in {path}",
            "what does {path} say",
            "what is in the file {path}",
            "what does the file {path} say",
        ),
        ("Show me the text of the file {path}.", "Open the file {path} and read it."),
        "words",
        True,
    ),
    Kind(
        "delete_file",
        ("Delete a file.", "Removes a file"),
        (_PATH,),
        ("delete {path}", "delete the file {path}", "remove {path}", "remove the file {path}"),
        (),
        ("Find the file {path} and remove it.", "The file to delete is {path}."),
        "done",
        True,
    ),
    Kind(
        "write_file",
        ("Write a file.", "Save a text in a file"),
        (_PATH, Parameter("content text", "string", _short_phrase, "The text")),
        (
            'write "{content}" to {path}',
            'write "{content}" into the file {path}',
            "save the text {content} in {path}",
            'make the file {path} with the text "{content}"',
            'create {path} with the content "{content}"',
        ),
        (),
        ('Save "{content}" in the file {path}.', 'Create the file {path} with the text "{content}".'),
        "done",
    ),
    Kind(
        "translate",
        ("Translate a text.", "Translates text into a language"),
        (
            Parameter("text", "string", _short_phrase, "The text"),
            Parameter("language target to", "string", words.language, "Target language"),
        ),
        (
            'translate "{text}" to {language}',
            'translate "{text}" into {language}',
            "translate to {language}: {text}",
            "translate {text} into {language}",
            'say "{text}" in {language}',
        ),
        ('what is "{text}" in {language}', 'how do you say "{text}" in {language}'),
        ('I want "{text}" in {language}.', "Translate the text {text} into {language}."),
    ),
    Kind(
        "set_timer",
        ("Set a timer.", "Starts a timer of some minutes"),
        (Parameter("minutes time", "integer", _small(1, 180), "Minutes"),),
        (
            "set a timer for {minutes} minutes",
            "start a timer of {minutes} minutes",
            "set a {minutes} minutes timer",
            "wake me in {minutes} minutes",
        ),
        (),
        ("Start the timer for {minutes} minutes.", "I need a timer of {minutes} minutes."),
        "done",
        notes=("timer for {minutes} minutes", "timer, {minutes} minutes", "a timer of {minutes} minutes"),
    ),
    Kind(
        "convert",
        ("Convert money.", "Converts an amount between currencies"),
        (
            Parameter("amount", "number", lambda d: d.choice([words.number, decimal])(d), "Amount"),
            Parameter("from source", *one_of(*CURRENCIES), "Currency"),
            Parameter("to target", *one_of(*CURRENCIES), "Currency"),
        ),
        (
            "convert {amount} {from} to {to}",
            "convert {amount} {from} into {to}",
            "change {amount} {from} to {to}",
        ),
        ("how much is {amount} {from} in {to}", "what is {amount} {from} in {to}", "{amount} {from} in {to}"),
        ("Turn {amount} {from} into {to}.", "How much {to} is {amount} {from}?"),
        "number",
    ),
    Kind(
        "create_event",
        ("Create an event.", "Puts an event in the calendar"),
        (
            Parameter("title name", "string", words.title, "Title"),
            Parameter("date day", "string", words.date, "Date"),
            Parameter("time start", "string", words.clock, "Time"),
        ),
        (
            "create the event {title} on {date} at {time}",
            'add "{title}" to my calendar on {date} at {time}',
            "plan {title} for {date} at {time}",
            "put {title} in the calendar on {date} at {time}",
        ),
        (),
        ("Add the event {title} on {date} at {time}.", 'Put "{title}" in my calendar: {date}, {time}'),
        "done",
        notes=("new event: {title}, {date}, {time}",),
    ),
    Kind(
        "lookup_user",
        ("Look up a user.", "Gets a user by number"),
        (Parameter("id user_id", "integer", _small(1, 99999), "Number of the user"),),
        ("look up user {id}", "find the user with the id {id}", "get user {id}", "show me user number {id}"),
        ("who is user {id}", "who is the user with the id {id}", "who has the user id {id}"),
        ("Find user {id}.", "Who is user number {id}?"),
        "name",
        True,
    ),
    Kind(
        "book_flight",
        ("Book a flight.", "Books a flight between two cities"),
        (
            Parameter("from origin start", "string", words.city, "From"),
            Parameter("to target", "string", words.city, "To"),
            Parameter("date day", "string", words.date, "Date"),
        ),
        (
            "book a flight from {from} to {to} on {date}",
            "book me a flight to {to} from {from} on {date}",
            "get me a flight from {from} to {to} for {date}",
            "on {date}, fly me from {from} to {to}",
        ),
        (),
        ("I need a flight to {to} from {from} on {date}.", "Fly me from {from} to {to} on {date}."),
        "done",
    ),
    Kind(
        "play_song",
        ("Play a song.", "Plays music", ""),
        (Parameter("title song name", "string", words.title, "Song"),),
        ("play {title}", "play the song {title}", 'play "{title}"', "put on the song {title}"),
        (),
        ("The song to play is {title}.", "The next song is {title}, play it."),
        "done",
        True,
    ),
    Kind(
        "set_light",
        ("Switch a light.", "Turns the light in a room on or off"),
        (
            Parameter("room", "string", words.noun, "Room"),
            Parameter("on", "boolean", lambda d: d.chance(0.5), "On?"),
        ),
        (
            "turn {on} the light in the {room}",
            "switch the light in the {room} {on}",
            "turn the {room} light {on}",
            "turn the light in the {room} {on}",
        ),
        (),
        ("Switch {on} the light in the {room}.", "Light {on} in the {room}"),
        "done",
        notes=("{room} light {on}",),
    ),
    Kind(
        "get_price",
        ("Get the price of an item.", "Price of a thing", ""),
        (Parameter("item product name", "string", words.thing, "Item"),),
        ("tell me the price of the {item}", "find the price of the {item}", "look up what the {item} costs"),
        (
            "what is the price of the {item}",
            "how much is the {item}",
            "what does the {item} cost",
            "how much does the {item} cost",
        ),
        ("Show me the price of the {item}.", "What is the cost of the {item}?"),
        "number",
    ),
    Kind(
        "count_words",
        ("Count the words of a text.", "Number of words in a text"),
        (Parameter("text", "string", lambda d: words.phrase(d, 2, 4), "Text"),),
        ('count the words in "{text}"', "count the words of: {text}", "count the words in this text: {text}"),
        ('how many words are in "{text}"', 'how many words does "{text}" have'),
        ('Tell me the number of words in "{text}".', "Count how many words this has: {text}"),
        "number",
    ),
    Kind(
        "add_task",
        ("Add a task to the list.", "Puts a task on the list"),
        (
            Parameter("task name", "string", lambda d: f"{words.verb(d)} the {words.noun(d)}", "Task"),
            Parameter("priority", *one_of("low", "high", "normal"), "Priority", " with {priority} priority"),
        ),
        (
            'add the task "{task}"',
            'add "{task}" to my list',
            'put the task "{task}" on my list',
            "add the task {task}",
        ),
        (),
        ('Put "{task}" on the list', 'I have a new task: "{task}"'),
        "done",
        notes=('new task: "{task}"',),
    ),
    Kind(
        "get_news",
        ("Get the news on a topic.", "Latest news"),
        (Parameter("topic subject", "string", words.noun, "Topic"),),
        (
            "tell me the news about the {topic}",
            "get news about the {topic}",
            "show the latest news on the {topic}",
        ),
        ("what is the news about the {topic}", "what is new about the {topic}", "news on the {topic}"),
        ("What are the latest news on the {topic}?", "Can you get the news about the {topic}?"),
        "words",
        True,
    ),
    Kind(
        "roll_dice",
        ("Roll a dice.", "Rolls a dice with some sides"),
        (Parameter("sides", "integer", _small(2, 100), "Sides"),),
        ("roll a dice with {sides} sides", "roll a {sides} sided dice", "throw a dice of {sides} sides"),
        (),
        ("I want to roll a dice of {sides} sides.", "Throw the {sides} sided dice."),
        "number",
    ),
    Kind(
        "order_food",
        ("Order food.", "Orders a meal", ""),
        (
            Parameter("food dish item", "string", words.thing, "Food"),
            Parameter("count quantity", "integer", _small(2, 20), "How many"),
        ),
        ("order {count} of the {food}", "order {count} times {food}", "get me {count} times {food}"),
        (),
        ("I want {count} times {food}.", "Order for me {count} of the {food}."),
        "done",
    ),
    Kind(
        "call_person",
        ("Call a person.", "Calls somebody by phone"),
        (
            Parameter(
                "name person contact",
                "string",
                lambda d: d.choice([words.first_name, words.full_name])(d),
                "Who",
            ),
        ),
        ("call {name}", "phone {name}", "call {name} on the phone", "make a call to {name}"),
        (),
        ("I want to call {name}.", "I need {name} on the phone."),
        "done",
        True,
    ),
    Kind(
        "set_volume",
        ("Set the volume.", "Sets how loud the music is"),
        (Parameter("level volume", "integer", _small(0, 100), "Level"),),
        ("set the volume to {level}", "turn the volume to {level}", "change the volume to {level}"),
        (),
        ("Make the volume {level}.", "I want the volume at {level}."),
        "done",
        notes=("volume {level}", "volume to {level}", "volume at {level}"),
    ),
    Kind(
        "get_distance",
        ("Distance between two cities.", "How far one city is from another"),
        (
            Parameter("start origin from", "string", words.city, "From"),
            Parameter("end target to", "string", words.city, "To"),
        ),
        ("find the distance from {start} to {end}", "tell me how far it is from {start} to {end}"),
        (
            "how far is it from {start} to {end}",
            "what is the distance from {start} to {end}",
            "how far is {end} from {start}",
        ),
        ("Get the distance from {start} to {end}.", "Can you find how far {end} is from {start}?"),
        "number",
    ),
]
