"""Names, words, numbers and strings, drawn so that a model learns to copy and not to remember.

Of the six lists of names and words, of jobs and of keys one entry in eight or so is held out (HELD_OUT): it stands
nowhere in the training text, in no spelling, neither drawn from any list nor in a fixed sentence; only a random
string may hold one by chance. The evaluation draws from the held-out entries alone. Lists without at least four
of them (colors, languages, countries, units, days) are closed sets, drawn whole by both. Half of the names, a
quarter of the words and most strings are invented on the spot, in shapes as different as possible: a model that
has seen no short capitalised name copies none.
"""

from __future__ import annotations

import builtins
import keyword
import string
from collections.abc import Sequence

from recipe.sample import Draw

HELD_OUT = frozenset(
    """amara arjun astrid boris chloe diego elif emil gabriel harry igor jonas karin kofi lily luis maya nadia otto petra
    rahul sonja tariq vera yuki zofia naomi henrik
    andersen becker clark dubois garcia hoffman jensen khan lopez meyer nguyen petrov silva taylor wright
    antwerp bogota calgary dakar geneva hanoi krakow leeds malmo nagoya palermo quito seville tallinn utrecht verona
    zurich
    airport army basket blanket bottle bucket candle carpet copper cotton curtain dinner dragon feather ghost island
    jewel jungle kettle knife lamp meadow mirror mountain needle notebook ocean pencil pepper planet queen ribbon
    scissors shadow shoulder spoon tulip umbrella valley village whistle
    ancient angry bitter brave clever curious dusty funny gentle hungry lucky noisy proud royal sharp swift tidy wild
    bake dig fetch gather guess hide invite kick laugh listen measure pour press repair smell swim taste wipe
    chemist jeweler mason potter sculptor welder
    county department nickname region shape
    depth laps rank seats""".split()
)
LEAST_HELD_OUT = 4


def is_held_out(word: str) -> bool:
    return word.lower() in HELD_OUT


def listed(d: Draw, values: Sequence[str]) -> str:
    """An entry of a list: of those held out in the evaluation, where they are enough, of the others in the
    training."""
    if d.training:
        while is_held_out(drawn := d.choice(values)):
            pass
        return drawn
    held = [each for each in values if is_held_out(each)]
    return d.choice(held if len(held) >= LEAST_HELD_OUT else values)


FIRST_NAMES = """Ada Alan Alice Amara Amir Ana Andre Anna Aria Arjun Asha Astrid Ben Bea Bob Boris Carla Carlos Cem Chen
Chloe Clara Dan Daria David Diego Dora Eli Elena Ella Emil Emma Eric Esra Eva Farah Felix Finn Fatima Gabriel Gia
George Grace Hana Hans Harry Hassan Helen Hugo Ian Ida Igor Ines Ingrid Iris Ivan Jack James Jan Jane Jin Joe John
Jonas Jose Julia Kai Kamal Karin Kate Ken Kim Kofi Lara Lars Laura Lea Leo Li Lily Lina Liu Lucas Lucy Luis Luna
Maja Malik Marco Maria Marie Mark Marta Mary Max Maya Mei Mia Miguel Mila Milan Mira Mona Nadia Nico Nils Nina Noah
Nora Olga Oliver Omar Oscar Otto Pablo Paul Pavel Pedro Petra Priya Quinn Rahul Ravi Rita Robert Rosa Ruth Sam Sami
Sara Sasha Simon Sofia Sonja Stefan Sven Tara Tariq Theo Tim Tina Tom Tomas Uma Ursula Valentin Vera Victor Viola
Walter Wanda Wei William Xena Yara Yasmin Yuki Yusuf Zara Zoe Zofia Ahmed Aiko Benita Bruno Cora Dimitri Edith Elif
Frank Gita Henrik Isabel Jamal Katya Leila Magnus Naomi Olivia Peter Rania Samuel Thea Ulrich Vivian Wendy Yann""".split()

LAST_NAMES = """Adams Allen Andersen Bauer Becker Bell Berg Brown Bianchi Carter Chan Clark Cohen Costa Cruz Davis Diaz
Dubois Evans Fischer Ford Fox Garcia Gray Green Gupta Haas Hall Hansen Hill Hoffman Hughes Ito Ivanov Jackson Jensen
Johnson Jones Kaur Keller Khan Kim King Klein Koch Kowalski Kumar Lang Larsen Lee Lewis Lopez Lund Martin Mayer Meyer
Miller Moore Mori Muller Nagy Nguyen Novak Olsen Ortiz Park Patel Perez Petrov Popov Price Ramos Reed Reyes Rossi
Russo Sato Schmidt Scott Shah Silva Singh Smith Stein Stone Suzuki Tan Taylor Torres Turner Vargas Vogel Wagner Walker
Wang Weber White Wilson Wolf Wong Wood Wright Yang Young Zhang Zimmer""".split()

CITIES = """Accra Amsterdam Ankara Antwerp Athens Austin Bali Bangkok Basel Beirut Berlin Bergen Bogota Bologna Boston
Brussels Budapest Cairo Calgary Chicago Cologne Cork Cusco Dakar Dallas Delhi Denver Dublin Dubai Durban Essen Faro
Florence Geneva Genoa Ghent Glasgow Graz Hamburg Hanoi Havana Helsinki Houston Istanbul Jakarta Kyoto Krakow Kiev
Lagos Lagoa Leeds Leipzig Lille Lima Linz Lisbon London Lyon Madrid Malmo Manila Miami Milan Minsk Monaco Montreal
Moscow Mumbai Munich Nagoya Nairobi Nantes Naples Nice Oporto Osaka Oslo Ottawa Oxford Palermo Paris Perth Porto
Prague Quito Rabat Reims Riga Rome Rotterdam Salzburg Santiago Seattle Seoul Seville Shanghai Siena Sofia Split
Stockholm Sydney Taipei Tallinn Tampa Tokyo Toronto Trier Tunis Turin Utrecht Valencia Venice Verona Vienna Vilnius
Warsaw Wellington York Zagreb Zurich Bern Bari Bonn Kobe Lund Nara Pisa Tartu Tirana Ulm Vigo""".split()

NOUNS = """account airport animal answer apple arm army art autumn baby bag ball banana bank basket bath bear bed bee
bell bird blanket board boat book boot bottle bowl box boy branch bread bridge brother brush bucket bus butter button
cabin cake camera candle car card carpet castle cat chain chair cheese cherry child church circle city class clock
cloud coat coffee coin color cook copper corner cotton cow cream cup curtain daughter day desk dinner doctor dog door
dragon dream dress drum duck dust ear earth egg elephant engine evening eye face family farm father feather field
finger fire fish flag flame floor flower fly forest fork fox frame friend frog fruit garden gate ghost gift girl glass
glove goat gold grape grass guitar hair hammer hand harbor hat head heart hen hill hole honey horse hotel house ice
idea island jacket jar jewel juice jungle kettle key king kitchen kite knife ladder lake lamp leaf leg lemon letter
library light lion lock machine map market meadow meal metal milk mirror money monkey moon morning mother mountain
mouse mouth museum music nail neck needle nest night nose notebook nut ocean office oil onion orange oven owl page
paint paper park path pen pencil pepper phone piano picture pie pig pillow pilot pin pipe planet plant plate pocket
pond pony potato queen rabbit radio rain ribbon rice ring river road robot rock roof room root rope rose salt sand
school scissors sea seed shadow sheep shelf ship shirt shoe shop shoulder silver sister sky snake snow soap sock sofa
soup spider spoon spring square stamp star station steam stick stone storm story street student sugar summer sun
swan table tail teacher tent thread ticket tiger toe tomato tool tooth tower town toy train tree truck tulip umbrella
valley vase village violin voice wagon wall watch water wave wheel whistle wind window wing winter wolf wood wool
worker world yard zebra""".split()

ADJECTIVES = """amber ancient angry big bitter black blue bold brave brief bright broad brown busy calm careful cheap
clean clear clever cold common cool crazy curious dark dear deep dry dusty early easy empty fair famous fast fine flat
free fresh full funny gentle golden good gray great green happy hard heavy high hollow honest hot huge hungry icy kind
large late lazy light little lonely long loud lucky modern narrow near neat new nice noisy odd old open orange pale
pink plain polite poor proud purple quick quiet rare red rich rough round royal sad safe sharp shiny short shy silent
silver simple slow small smart smooth soft solid sour square steep strange strong sweet swift tall thick thin tidy
tiny tired tough true warm weak wet white wide wild wise wooden yellow young""".split()

VERBS = """add ask bake bring build buy call carry catch change check clean climb close collect cook copy count cross
cut dance dig draw drink drive drop eat enter feed feel fetch fill find fix fly fold follow gather give greet grow
guess guide hang help hide hold invite join jump keep kick knock laugh learn leave lift like listen load look make mark
measure meet mix move name open order pack paint park pass pick plan plant play point pour press print pull push put
reach read repair reply rest return ride ring roll run save search sell send set share show shut sing sit skip sleep
smell sort speak spell start stay stop study swim take talk taste teach tell test think throw tie touch trace travel
try turn use visit wait walk wash watch wear weigh win wipe work write""".split()

COLORS = (
    "red blue green pink gold gray black white brown orange purple yellow silver violet teal beige".split()
)
JOBS = """doctor teacher pilot cook writer farmer nurse painter baker lawyer singer driver engineer plumber dentist judge
actor builder chemist clerk dancer designer editor fisher gardener guard hunter jeweler librarian mason miner musician
officer physicist poet potter sailor scientist sculptor surgeon tailor translator vet waiter weaver welder""".split()
LANGUAGES = """French German Spanish Dutch Italian Greek Turkish Polish Danish Finnish Swedish Arabic Hindi Korean
Japanese Portuguese Czech Irish Latin Hebrew Russian Thai""".split()
COUNTRIES = """France Germany Spain Italy Greece Turkey Poland Denmark Finland Sweden Egypt India Korea Japan Portugal
Ireland Norway Austria Kenya Peru Chile Cuba Canada Mexico Brazil China Iran Iraq Nepal Ghana Malta Iceland""".split()
UNITS = "meters liters grams boxes pages hours euros pieces cups miles minutes bottles".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
DOMAINS = "com org net io dev".split()
EXTENSIONS = "txt md py json csv log html js toml yaml".split()
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four""".split()

_CONSONANTS = (
    "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kn kr ph pl pr sh sk sl sp st th tr".split()
)
_VOWELS = "a e i o u a e i o u ai au ea ee ie oa oo ou ue y".split()
_ENDS = " n r s l t m k d x nd rt ng ck st".split(" ")


def invented(d: Draw, syllables: tuple[int, int] = (1, 3)) -> str:
    """A word that does not exist: lower case, 2 to about 14 letters."""
    kind = d.random.random()
    if kind < 0.12:  # letters in no sensible order as well
        return letters(d, 2, 8)
    if kind < 0.45:
        return blended(d)
    made = "".join(
        d.choice(_CONSONANTS) + d.choice(_VOWELS) for _ in range(d.integer(*syllables))
    ) + d.choice(_ENDS)
    made = made if d.chance(0.8) else d.choice(_VOWELS) + made
    return invented(d, syllables) if made in HELD_OUT else made


def blended(d: Draw) -> str:
    """The head of one English word and the tail of another, so that every piece that the tokenizer knows is met in
    words that nobody has seen."""
    head, tail = (listed(d, d.choice([NOUNS, NOUNS, ADJECTIVES, VERBS])) for _ in range(2))
    made = head[: d.integer(1, len(head))] + tail[d.integer(0, len(tail) - 1) :]
    return blended(d) if made in HELD_OUT else made


def letters(d: Draw, low: int, high: int) -> str:
    made = "".join(d.choice(string.ascii_lowercase) for _ in range(d.integer(low, high)))
    return letters(d, low, high) if made in HELD_OUT else made


def first_name(d: Draw) -> str:
    return listed(d, FIRST_NAMES) if d.chance(0.5) else invented(d, (1, 3)).capitalize()


def last_name(d: Draw) -> str:
    return listed(d, LAST_NAMES) if d.chance(0.5) else invented(d, (1, 3)).capitalize()


def full_name(d: Draw) -> str:
    return f"{first_name(d)} {last_name(d)}"


def city(d: Draw) -> str:
    if d.chance(0.08):
        return (
            f"{d.choice(['New', 'Port', 'San', 'Saint', 'Old', 'Lake'])} {invented(d, (1, 2)).capitalize()}"
        )
    return listed(d, CITIES) if d.chance(0.5) else invented(d, (1, 3)).capitalize()


def language(d: Draw) -> str:
    return listed(d, LANGUAGES)


def job(d: Draw) -> str:
    return listed(d, JOBS)


def color(d: Draw) -> str:
    return listed(d, COLORS)


def noun(d: Draw) -> str:
    return listed(d, NOUNS)


def adjective(d: Draw) -> str:
    return listed(d, ADJECTIVES)


def verb(d: Draw) -> str:
    return listed(d, VERBS)


def word(d: Draw) -> str:
    """Any lower-case word, one in four invented."""
    if d.chance(0.25):
        return invented(d)
    return d.choice([noun, noun, adjective, verb])(d)


def phrase(d: Draw, low: int = 2, high: int = 5) -> str:
    """Lower-case words in no sensible order, one space between."""
    return " ".join(word(d) for _ in range(d.integer(low, high)))


def thing(d: Draw) -> str:
    """ "a quiet harbor" without the article: one or two words that make a thing."""
    return noun(d) if d.chance(0.5) else f"{adjective(d)} {noun(d)}"


def title(d: Draw) -> str:
    """A title such as of a book: "The Quiet Harbor"."""
    words = [word(d).capitalize() for _ in range(d.integer(1, 3))]
    return ("The " if d.chance(0.3) else "") + " ".join(words)


def string_of(d: Draw) -> str:
    """An unseen string without spaces: codes, hashes, hyphens, capitals, digits."""
    kind = d.integer(0, 6)
    if kind == 0:
        return letters(d, 3, 8)
    if kind == 1:
        return "".join(d.choice(string.ascii_lowercase + string.digits) for _ in range(d.integer(3, 10)))
    if kind == 2:
        return "".join(d.choice(string.ascii_uppercase + string.digits) for _ in range(d.integer(3, 8)))
    if kind == 3:
        return f"{letters(d, 2, 4).upper()}-{d.integer(1, 9999)}"
    if kind == 4:
        return f"{invented(d)}-{invented(d)}"
    if kind == 5:
        return "".join(d.choice("0123456789abcdef") for _ in range(d.choice([4, 6, 8, 12])))
    return "".join(d.choice(string.ascii_letters) for _ in range(d.integer(3, 8)))


def identifier(d: Draw) -> str:
    """A name for a variable, function or tool: lower case, words joined with underscores, and nothing that
    means something in Python."""
    while True:
        made = "_".join(word(d) for _ in range(d.choice([1, 1, 2, 2, 3])))
        if not keyword.iskeyword(made) and not hasattr(builtins, made):
            return made


def file_name(d: Draw, extension: str | None = None) -> str:
    stem = d.choice([identifier, identifier, invented, word])(d)
    return f"{stem}.{extension or listed(d, EXTENSIONS)}"


def path(d: Draw, extension: str | None = None) -> str:
    """A file name, in up to two folders."""
    folders = [word(d) for _ in range(d.choice([0, 0, 1, 1, 2]))]
    return "/".join([*folders, file_name(d, extension)])


def email(d: Draw) -> str:
    left = d.choice(
        [
            lambda: first_name(d).lower(),
            lambda: f"{first_name(d)}.{last_name(d)}".lower(),
            lambda: string_of(d),
        ]
    )()
    return f"{left}@{invented(d)}.{d.choice(DOMAINS)}"


def number(d: Draw) -> int:
    """An integer, small ones oftener than large ones."""
    return d.integer(0, d.choice([9, 20, 99, 99, 999, 9999]))


def date(d: Draw) -> str:
    return f"{d.integer(1990, 2030)}-{d.integer(1, 12):02}-{d.integer(1, 28):02}"


def clock(d: Draw) -> str:
    return f"{d.integer(0, 23):02}:{d.choice([0, 5, 10, 15, 20, 30, 40, 45, 50]):02}"


def value(d: Draw) -> str:
    """Anything that may stand as a value to be looked up or copied."""
    return d.choice(
        [
            string_of,
            string_of,
            invented,
            word,
            first_name,
            city,
            lambda d: str(number(d)),
            email,
            file_name,
            full_name,
            lambda d: phrase(d, 2, 3),
        ]
    )(d)


# ---- words put together


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def with_article(thing: str) -> str:
    """ "an old box", "a box"."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def filled(form: str, value: str) -> str:
    """{v} becomes the value, {av} the value with its article."""
    return form.replace("{av}", with_article(value)).replace("{v}", value)


def prose(items: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def listing(d: Draw, items: Sequence[str], commas: float = 0.33) -> str:
    """ "a, b and c", or with commas alone."""
    return ", ".join(items) if d.chance(commas) else prose(items)


def spelled(d: Draw, number: int, words: float) -> str:
    """A number in digits or, where there is a word for it, with this probability as a word."""
    return NUMBERS[number] if number < len(NUMBERS) and d.chance(words) else str(number)
