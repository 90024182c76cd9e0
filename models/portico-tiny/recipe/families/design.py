"""A microservices design in five numbered parts, each of one sentence; domain and features are copied."""

from __future__ import annotations

from recipe import words
from recipe.families.framing import opening
from recipe.sample import Draw, Entry, Message, Sample, says, user
from recipe.words import lower_first, with_article

# Each part: how a request names it, and its sentence.
PARTS = {
    "services": (
        ["Services", "The services and what each does", "What each service does", "Service list"],
        "Services: one small {domain} service each for {features}.",
    ),
    "data": (
        ["Data", "Where the data lives", "How the data is stored", "Databases"],
        "Data: each {domain} service owns its own database.",
    ),
    "communication": (
        ["Communication", "How the services talk to each other", "Messages between the services"],
        "Communication: the {domain} services call each other over HTTP and send events through a queue.",
    ),
    "deployment": (
        ["Deployment", "How it goes live", "How it is deployed", "Releases"],
        "Deployment: every {domain} service is built into a container and released alone.",
    ),
    "monitoring": (
        ["Monitoring", "How it is watched", "How it is monitored", "Logs and alerts"],
        "Monitoring: logs, metrics and alerts cover every {domain} service.",
    ),
    "scaling": (
        ["Scaling", "What happens under load", "How it grows"],
        "Scaling: more copies of the busy {domain} services start under load.",
    ),
    "security": (
        ["Security", "Who may do what", "How access is checked"],
        "Security: one {domain} login service gives out tokens, and every other service checks them.",
    ),
    "testing": (
        ["Testing", "How it is tested", "Tests"],
        "Testing: each {domain} service has tests of its own, and one test walks through all of them.",
    ),
    "failures": (
        ["Failures", "What happens when a service is down", "When something breaks"],
        "Failures: when a {domain} service is down, the others go on and try again later.",
    ),
}
USUAL_PARTS = ["services", "data", "communication", "deployment", "monitoring"]
DOMAINS = """e-commerce shop bank library clinic hotel school museum cinema travel delivery ticket news game
music""".split()
FEATURES = """products cart orders payments users accounts loans search messages bookings reports reviews tickets
invoices shipping login stock news photos events""".split()
DESIGN_WORDINGS = [
    *["Plan the services of {a_platform}.", "Split {a_platform} into microservices."] * 2,
    *[
        f"{head} {what} {{a_platform}}{end}"
        for head, end in [
            ("Plan", "."),
            ("Please plan", "."),
            ("Can you plan", "?"),
            ("Could you sketch", "?"),
            ("Sketch", "."),
            ("Design", "."),
            ("Propose", "."),
            ("Help me plan", "."),
            ("I need", "."),
            ("You are an architect. Design", "."),
        ]
        for what in ["the services of", "the microservices for", "a microservices design for"]
    ],
    "How would you split {a_platform} into services?",
    "Which services does {a_platform} need?",
    "Cut {a_platform} into small services.",
    "Build {a_platform} from microservices: how?",
    "We are building {a_platform}. Plan its microservices.",
    "Our team builds {a_platform} from microservices. Propose a design.",
    "This is our product: {a_platform}. Split it into services.",
    "A microservices design for {a_platform}, please.",
    # Never trained:
    "Help me split {a_platform} into small services.",
    "Our team is building {a_platform}. Which microservices does it need?",
]
PARTS_WORDINGS = [
    *["Answer in five numbered parts:"] * 2,
    "Cover these five points:",
    "Write one sentence on each of these:",
    "One line each on:",
    "Go through these points:",
    "The answer has five parts:",
    "Use this outline:",
    "Take these points in order:",
    "I want to read about:",
    "Five numbered parts, please:",
    # Never trained:
    "Please take these five points in order:",
    "Write one line on each of these points:",
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
    "Please write a list of 5 numbered parts.",
]


def _notes(d: Draw, features: str) -> list[str]:
    """What the request says of the platform: its features always, other things with luck."""
    notes = [f"{d.choice(['It offers', 'It has', 'It covers', 'People use it for'])} {features}"]
    if d.chance(0.3):
        notes.append(
            d.choice(
                [
                    f"About {d.integer(1, 90)},000 people use it",
                    f"It gets {d.integer(1, 90)},000 requests a day",
                    f"A team of {d.integer(2, 30)} builds it",
                ]
            )
        )
    if d.chance(0.35):
        notes.append(d.choice(["Mornings are busy", "It grows fast", "It is new", "It runs in the cloud"]))
    return d.shuffled(notes) if d.chance(0.3) else notes


def _outline(d: Draw, parts: list[str]) -> str:
    """The parts as the request lists them: numbered, with dashes, or in a line."""
    names = [PARTS[part][0][0] if d.chance(0.4) else d.choice(PARTS[part][0]) for part in parts]
    kind = d.random.random()
    if kind < 0.25:
        return " " + ", ".join(lower_first(name) for name in names) + "."
    mark = "- {name}" if kind < 0.4 else "{at}. {name}"
    return "\n" + "\n".join(mark.format(at=at, name=name) for at, name in enumerate(names, 1))


def design(d: Draw) -> Sample:
    """The parts that the request lists, in its order, else the usual five."""
    domain = d.choice([*DOMAINS, words.noun(d), words.noun(d), words.noun(d), words.noun(d)])
    known = [*FEATURES, f"{words.noun(d)} list", f"{words.noun(d)} search"]
    features = words.prose(d.some(known, 2, 5))
    if features.count(",") and d.chance(0.3):
        features = features.replace(" and ", ", and ")
    a_platform = f"{with_article(domain)} {d.choice(['platform', 'system', 'site', 'app'])}"
    asked = d.wording(DESIGN_WORDINGS).format(a_platform=a_platform)
    notes = _notes(d, features)
    if d.chance(0.5):
        heading = d.choice(["Facts:", "What we know:", "Notes:", "About it:"])
        asked += f"\n\n{heading}\n" + "\n".join(f"- {note}" for note in notes)
    else:
        asked += d.choice([" ", "\n"]) + " ".join(f"{note}." for note in notes)

    gap = d.choice(["\n\n", "\n", " "])
    if "\n- " in asked:
        gap = "\n\n"
    parts = USUAL_PARTS
    if d.chance(0.6):
        parts = parts if d.chance(0.2) else d.shuffled(list(PARTS))[:5]
        asked += f"{gap}{d.wording(PARTS_WORDINGS)}{_outline(d, parts)}"
    else:
        asked += gap + d.wording(FIVE_WORDINGS)
    if d.chance(0.15):
        asked += "\n"
    sentences = [PARTS[part][1].format(domain=domain, features=features) for part in parts]
    answer = "\n".join(f"{at}. {sentence}" for at, sentence in enumerate(sentences, 1))

    def form(got: Message) -> bool:
        lines = got["content"].strip().split("\n")
        return len(lines) == 5 and all(line.startswith(f"{at}. ") for at, line in enumerate(lines, 1))

    return Sample([*opening(d, talk=0), user(asked), says(answer)], form=form)


ENTRIES = [Entry("design", design, bar=0.9, share=3)]
