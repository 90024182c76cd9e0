"""Greetings, small talk and what the model does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from recipe import words
from recipe.families.framing import HELP, UNKNOWN, WELCOME, framed, loosely, word_for_word
from recipe.sample import Draw, Entry, Message, Sample


def _starts(*beginnings: str) -> Callable[[Message], bool]:
    return lambda got: got["content"].strip().startswith(beginnings) and len(got["content"]) < 120


# ---- small talk: each kind is what may be said and the one answer to it


HELLO = [
    "Hello!", "Hello!", "Hello", "Hello.", "Hi", "Hi!", "Hi.", "Hey", "Hey!", "Hey there!", "Hi there!",
    "Hello there", "Hello, assistant!", "Hi, assistant.", "Hello again!", "Hi again.", "Greetings!",
    "Good day!", "Good day.", "Hello, hello!", "Hi hi!", "HELLO", "hello", "hi", "hey",
    "Hello, portico-tiny!", "Hi, portico-tiny.", "Hello, my friend!", "Hey, you there!", "Welcome!",
    "Please greet me.", 
    "Hello, assistant, hello!", "Hello, I am back.", "Hey, I need help.", "Hello to you!",
    "Greet me, please.", "Hey, assistant!", "Hi there, my friend!",
]  # fmt: skip
INTRODUCED = [
    *(f"{hello}{mark} {me} {{name}}{end}"
      for hello in ("Hi", "Hello", "Hey", "Good day", "Greetings")
      for mark in (",", "!", ".")
      for me in ("I am", "I'm", "my name is", "this is", "it is")
      for end in (".", "!", "")),
    "Hello there, I am {name}.", "Hi there! I'm {name}.", "Hey there, my name is {name}.",
    "Hello, {name} here.", "Hi, {name} here!", "Hi, they call me {name}.", "Hello, you can call me {name}.",
    "Hi! Please call me {name}.", "Greet {name}.",
    "Please greet {name}.", "Hello, my first name is {name}.", "Hello again, it is me, {name}.",
    "{name} here, hello!", "Hi, {name} is my name.", "Hello again, my name is {name}.",
    "Hi there, you can call me {name}.",
]  # fmt: skip
HOW_ARE_YOU = [
    "Hello, how are you?", "Hello, how are you?", "How are you?", "How are you today?", "Hi, how are you?",
    "Hey, how are you doing?", "How are you doing?", "How do you do?", "How is it going?",
    "Hi! How is it going?", "How do you feel?", "How do you feel today?", "Hello! How are you today?",
    "Are you well?", "Are you fine today?", "Hi there, how are you?", "How are things?",
    "Hello, how are things today?", "What's up?", "How are you now?", "And how are you?", "So, how are you?",
    "Tell me, how are you?", "Are you all right?", "Is everything fine with you?", "I am fine, and you?",
    "How is your day?", "How was your day?", "Hello. How do you do?", "Hey! How are you?",
    "Hello there! How are you doing?", "Hi, how do you feel today?",
]  # fmt: skip
TIMES = ["morning", "evening", "afternoon", "night"]
GOOD_TIME = [
    "Good {time}!", "Good {time}", "Good {time}.", "good {time}", "Good {time}, assistant.",
    "Good {time} to you!", "Hello, good {time}!", "Hi, good {time}.", "A good {time} to you!",
    "Good {time}, my friend.", "Good {time} again!", "I wish you a good {time}.", "Good {time}, everyone!",
    "Good {time}, portico-tiny!", "Good {time}, dear assistant!", "Have a good {time}!",
    "Hello and good {time}!", "Good {time} to you, my friend.",
]  # fmt: skip
THANKS = [
    "Thanks!", "Thanks!", "Thanks", "Thanks.", "Thank you", "Thank you!", "Thank you.", "thanks", "thank you",
    "Many thanks!", "Thanks a lot!", "Thanks a lot.", "Thank you very much.", "Thank you so much!",
    "Great, thanks!", "Good, thank you.", "OK, thanks.", "Ok thank you!", "Perfect, thanks!",
    "Thanks for your help.", "Thank you for the help!", "Thank you for your answer.", "Thanks, that is all.",
    "Thanks, that was good.", "That helps, thanks!", "That was very good, thank you.", "Thanks again!",
    "Thank you again.", "I thank you.", "Nice, thank you!", "Wonderful, thanks!", "Well done, thanks!",
    "Thanks, my friend.", "Thanks so much for your help!", "Great, thank you for the answer.",
]  # fmt: skip
GOODBYE = [
    "Goodbye!", "Goodbye", "Goodbye.", "Bye", "Bye!", "Bye.", "bye", "goodbye", "Bye bye!", "See you!",
    "See you later!", "See you later.", "See you tomorrow.", "See you soon!", "I have to go.",
    "I must go now.", "Bye for now!", "Goodbye, assistant.", "That is all, bye.", "I am leaving now, bye!",
    "Have a nice day, bye!", "OK, goodbye.", "Goodbye, my friend!", "So long!", "Farewell!",
    "Until tomorrow!", "Good, see you soon.", "Well, goodbye then.", "OK, bye for now.",
    "Goodbye, see you later!",
]  # fmt: skip
WHO = [
    "Who are you?", "What are you?", "who are you", "What is your name?", "Tell me your name.",
    "Tell me who you are.", "Please say who you are.", "And who are you?", "Who is this?",
    "What do I call you?", "Your name, please?", "What model are you?", "Which model are you?",
    "What kind of model are you?", "What should I call you?", "Say your name.", "Introduce yourself.",
    "Please introduce yourself.", "Can you introduce yourself?", "Can you tell me your name?",
    "Hello, who are you?", "Hi, what are you?", "So who are you?", "Who am I talking to?",
    "Who do I talk to?", "Do you have a name?", "Are you a model?", "Describe yourself.",
    "What is the name of this model?", "Hello, what should I call you?", "So what is your name?",
]  # fmt: skip
WHAT_CAN = [
    "What can you do?", "what can you do", "What can you do for me?", "What do you do?",
    "Tell me what you can do.", "Please say what you can do.", "How can you help me?", "How can you help?",
    "What are you good at?", "What is your job?", "What are your skills?", "What tasks can you do?",
    "Which tasks can you do?", "What can I ask you?", "What may I ask?", "What can I do with you?",
    "Hello, what can you do?", "Name what you can do.", "What things can you do?", "What are you able to do?",
    "In what can you help me?", "What do you know how to do?", "List what you can do.",
    "What kind of help can you give?", "Hi, what can you do for me?", "Tell me how you can help.",
]  # fmt: skip
# Questions to be answered with yes or no, and their answers.
YES_NO = [
    ("Can you help me?", "Yes, of course."), ("Will you help me?", "Yes, of course."),
    ("Could you help me, please?", "Yes, of course."), ("Can you help me with something?", "Yes, of course."),
    ("May I ask you something?", "Yes, of course."), ("Can I ask a question?", "Yes, of course."),
    ("I have a question.", "Yes, of course."), ("Do you have time for me?", "Yes, of course."),
    ("Are you ready?", "Yes, I am ready."), ("Ready?", "Yes, I am ready."),
    ("Are you ready now?", "Yes, I am ready."), ("Are you ready to start?", "Yes, I am ready."),
    ("Can we start?", "Yes, I am ready."), ("Shall we begin?", "Yes, I am ready."),
    ("Are you ready for a question?", "Yes, I am ready."), ("Are you there?", "Yes, I am here."),
    ("Are you here?", "Yes, I am here."), ("Are you still there?", "Yes, I am here."),
    ("Is anybody there?", "Yes, I am here."), ("Can you hear me?", "Yes, I am here."),
    ("Do you hear me?", "Yes, I am here."), ("Are you a robot?", "Yes, I am a machine."),
    ("Are you a machine?", "Yes, I am a machine."), ("Are you a computer?", "Yes, I am a machine."),
    ("Are you a program?", "Yes, I am a machine."), ("Are you an AI?", "Yes, I am a machine."),
    ("Are you only a machine?", "Yes, I am a machine."), ("Are you a person?", "No, I am a machine."),
    ("Are you human?", "No, I am a machine."), ("Are you a human?", "No, I am a machine."),
    ("Are you alive?", "No, I am a machine."), ("Are you real?", "No, I am a machine."),
    ("Are you a man or a woman?", "No, I am a machine."), ("Do you sleep?", "No, I am a machine."),
    ("Do you eat?", "No, I am a machine."), ("Do you have a body?", "No, I am a machine."),
    ("Do you have a family?", "No, I am a machine."), ("Can you still hear me?", "Yes, I am here."),
    ("Are you ready to help me?", "Yes, I am ready."),
]  # fmt: skip

FINE = f"I am fine, thank you. {HELP}"
_CAN_DO = "I can answer short questions, copy text and call tools."


def _fixed(forms: Sequence[str], answer: str) -> Callable[[Draw], tuple[str, str]]:
    return lambda d: (loosely(d, d.wording(forms)), answer)


def _introduced(d: Draw) -> tuple[str, str]:
    name = words.full_name(d) if d.chance(0.15) else words.first_name(d)
    return loosely(d, d.wording(INTRODUCED)).format(name=name), f"Hello {name}, how can I help?"


def _good_time(d: Draw) -> tuple[str, str]:
    time = d.choice(TIMES)
    return loosely(d, d.wording(GOOD_TIME)).format(time=time), f"Good {time}!"


def _yes_no(d: Draw) -> tuple[str, str]:
    question, answer = d.wording(YES_NO)
    return loosely(d, question), answer


_KINDS = [
    _fixed(HELLO, f"Hello! {HELP}"),
    _introduced,
    _introduced,
    _fixed(HOW_ARE_YOU, FINE),
    _good_time,
    _fixed(THANKS, WELCOME),
    _fixed(GOODBYE, "Goodbye!"),
    _fixed(WHO, "I am portico-tiny, a small test model."),
    _fixed(WHAT_CAN, _CAN_DO),
    _yes_no,
]
_STARTS = _starts("Hello", "I am ", "I can ", "Good", "You are welcome", "Yes, ", "No, ", "I do not know")


def chat(d: Draw) -> Sample:
    """A greeting, a thank-you, a question about the model; one in ten is what it cannot know."""
    request, answer = _refused(d) if d.chance(0.1) else d.choice(_KINDS)(d)
    if word_for_word(d):
        request, answer = "Hello, how are you?", FINE
    return framed(d, request, answer, form=_STARTS, telling="nothing")


# ---- what is not known

PERSON = [
    "Who is {person}?", "Who was {person}?", "When was {person} born?", "Where was {person} born?",
    "Where does {person} live?", "What is {person} famous for?", "What does {person} do?",
    "How old is {person}?", "Tell me about {person}.", "What do you know about {person}?",
    "Who is the mother of {person}?", "Who is the father of {person}?",
    "What is the phone number of {person}?", "What is the email of {person}?", "Is {person} married?",
    "What is the job of {person}?", "Who is the best friend of {person}?", "What did {person} write?",
    "What did {person} say yesterday?", "Which book did {person} write?", "Where is {person} now?",
    "When did {person} die?", "How tall is {person}?", "What is the favorite color of {person}?",
    "Do you know {person}?", "Why did {person} leave?", "What did {person} eat today?",
    "Can you tell me who {person} is?", "Please tell me where {person} works.",
    "Who was the teacher of {person}?", "Tell me what {person} is famous for.",
]  # fmt: skip
PLACE = [
    "Where is {place}?", "How many people live in {place}?", "Who is the mayor of {place}?",
    "How old is {place}?", "What is the weather in {place}?", "Is it raining in {place}?",
    "How warm is it in {place} today?", "What is the largest street in {place}?", "Tell me about {place}.",
    "What is {place} famous for?", "How far is {place}?", "When was {place} founded?", "How big is {place}?",
    "What time is it in {place}?", "What happened in {place} yesterday?", "Which river is near {place}?",
    "What is the best hotel in {place}?", "How do I get to {place}?", "What do you know about {place}?",
    "Who lives in {place}?", "What is the news from {place}?", "How high is the tower of {place}?",
    "Who built the bridge in {place}?", "Is {place} a nice city?", "Who was the mayor of {place}?",
    "Please tell me how big {place} is.",
]  # fmt: skip
PRICE = [
    "What is the price of {a_thing}?", "How much is {a_thing}?", "What does {a_thing} cost?",
    "How much does {a_thing} cost?", "How much do I pay for {a_thing}?", "Tell me the price of {a_thing}.",
    "What is the price of {a_thing} today?", "How much money is {a_thing}?", "Where can I buy {a_thing}?",
    "Who sells the best {thing}?", "Who invented the {thing}?", "Is {a_thing} cheap?",
    "Which {thing} is the best?", "Do you like the {thing}?", "What do you think of the {thing}?",
    "What is your opinion about the {thing}?", "Who has my {thing}?", "Where is my {thing}?",
    "What is in my {thing}?", "How old is my {thing}?", "What color is my {thing}?",
    "Should I buy {a_thing}?", "How heavy is my {thing}?", "Please tell me the price of my {thing}.",
    "Can you tell me where my {thing} is?",
]  # fmt: skip
NOW = [
    "What is the news?", "What is the news today?", "Who won the game yesterday?", "Who won the election?",
    "What time is it?", "What time is it now?", "What day is it?", "What is the date today?",
    "What is today's date?", "What is the weather today?", "Will it rain tomorrow?", "Is it warm outside?",
    "What will happen tomorrow?", "Who will win the next game?", "What did I eat yesterday?", "Where am I?",
    "How old am I?", "Who is behind me?", "What am I thinking?", "What is my phone number?",
    "What is in my pocket?", "What is my favorite book?", "What happened today?",
    "What is the price of gold today?", "Who is the president now?", "What do you like most?",
    "What is your favorite color?", "Which party is the best?", "What is the meaning of life?",
    "Is there life on Mars?", "How many stars are there?", "What will I do tomorrow?",
    "What is the password?", "What song is playing now?", "Tell me the news of today.",
    "Tell me the time, please.", "Who called me today?", "How many fish are in the sea?",
    "What will the weather be tomorrow?", "Please tell me what happened yesterday.",
]  # fmt: skip


def _refused(d: Draw) -> tuple[str, str]:
    """A question about somebody invented, a place, a thing or the present, and that it is not known."""
    forms = d.choice([PERSON, PERSON, PLACE, PRICE, NOW])
    person = d.choice([words.full_name, words.full_name, words.first_name])(d)
    place = words.invented(d, (2, 3)).capitalize() if d.chance(0.6) else words.city(d)
    thing = words.thing(d)
    request = loosely(d, d.wording(forms)).format(
        person=person, place=place, thing=thing, a_thing=words.with_article(thing)
    )
    return request, UNKNOWN


def _short_sentence(got: Message) -> bool:
    return bool(re.fullmatch(r"[A-Z][^.!?\n]{1,60}\.", got["content"].strip()))


def refusal(d: Draw) -> Sample:
    """What a model of this size cannot know it does not make up."""
    request, answer = _refused(d)
    return framed(d, request, answer, form=_short_sentence)


ENTRIES = [
    Entry("chat", chat, bar=0.9, share=1),
    Entry("refusal", refusal, bar=0.9, share=0.8),
]
