"""What Portico itself says to a model: the texts and schemas of prompts.toml, and how they are put together.

The client ("call a tool or finish") and the software team build their turns with these functions, and
portico-tiny is trained on what they give. They are pure: values in, text or JSON schema out.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files as package_files
from typing import Any

Schema = dict[str, Any]


@cache
def texts() -> dict[str, Any]:
    """prompts.toml, read once."""
    return tomllib.loads(package_files("portico").joinpath("prompts.toml").read_text(encoding="utf-8"))


def fill(text: str, **values: object) -> str:
    """`text` with each {name} of `values` filled in. Other braces stay, since the texts hold JSON, and so do
    braces in the values themselves."""
    return re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], found[0])), text)


# ---- the client's turns


def call_schema(tools: Sequence[Mapping[str, Any]], answer: Schema | None = None) -> Schema:
    """The JSON schema of one turn: a call of one of `tools` (OpenAI's definitions) or {"finish": ANSWER},
    where ANSWER is a string, or an object of the schema `answer`."""
    calls = [
        _closed(
            {
                "call": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object", "properties": {}},
            }
        )
        for tool in tools
    ]
    return {"anyOf": [*calls, _closed({"finish": answer or {"type": "string"}})]}


def _closed(properties: dict[str, Any]) -> Schema:
    """An object of exactly these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def call_system(tools: Sequence[Mapping[str, Any]], caller: str = "", answer: Schema | None = None) -> str:
    """The system message that goes with `call_schema`: what the caller says, how to answer, and the tools as
    portico-tiny's chat template writes them."""
    client = texts()["client"]
    instruction = client["instruction"]
    if answer is not None:
        instruction += "\n" + fill(client["finish_schema"], schema=_json(answer))
    lines = "".join(f"{_tool_line(tool['function'])}\n" for tool in tools)
    return (f"{caller}\n\n" if caller else "") + f"{instruction}\n\n# Tools\n<tools>\n{lines}</tools>"


def call_outcome(name: str, outcome: str, *, failed: bool = False) -> str:
    """The user message that tells what a call gave back, or how it failed."""
    client = texts()["client"]
    if failed:
        return fill(client["error"], name=name, error=outcome)
    return fill(client["result"], name=name, result=outcome)


def _tool_line(function: Mapping[str, Any]) -> str:
    shown = {key: function[key] for key in ("name", "description", "parameters") if function.get(key)}
    return _json(shown)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---- the team's turns


def action_schema() -> Schema:
    """The JSON schema of a turn of actions: one object, an action by name with its fields in order."""
    return {
        "anyOf": [
            _closed({"action": {"const": name}, **{field: {"type": "string"} for field in fields}})
            for name, _, fields in _actions()
        ]
    }


def action_tools() -> list[dict[str, Any]]:
    """The same actions as tools, for servers and models with tools."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": description,
                "parameters": {
                    "type": "object",
                    "properties": {
                        field: {"type": "string", "description": what} for field, what in fields.items()
                    },
                    "required": list(fields),
                },
            },
        }
        for name, description, fields in _actions()
    ]


def _actions() -> list[tuple[str, str, dict[str, str]]]:
    return [
        (
            name,
            fields["description"],
            {field: what for field, what in fields.items() if field != "description"},
        )
        for name, fields in texts()["team"]["actions"].items()
    ]


# Markdown's name for the language of a file, by the end of its name.
_FENCES = {
    "py": "python",
    "js": "javascript",
    "ts": "typescript",
    "html": "html",
    "css": "css",
    "json": "json",
    "md": "markdown",
    "sh": "bash",
    "go": "go",
    "rs": "rust",
    "java": "java",
    "c": "c",
    "cpp": "cpp",
    "toml": "toml",
    "yaml": "yaml",
    "yml": "yaml",
}


def brief(
    name: str, task: str, *, modality: str = "", language: str = "", ideas: str = "", files: str = ""
) -> str:
    """The system message that all roles of a run share; what is not known yet is left out. `files` is what
    `show_files` gave."""
    team = texts()["team"]
    lines = [fill(team["brief"], name=name, task=task)]
    for key, value in (("modality", modality), ("language", language), ("ideas", ideas)):
        if value:
            lines.append(fill(team[key], **{key: value}))
    return "\n".join(lines) + (f"\n\n{files}" if files else "")


def show_files(contents: Mapping[str, str], omitted: Sequence[str] = ()) -> str:
    """The files of a project (path -> text) as the brief shows them, and the names of those left out."""
    team = texts()["team"]
    shown = [
        fill(
            team["file"],
            path=path,
            fence=_FENCES.get(path.rpartition(".")[2], ""),
            content=content.rstrip("\n"),
        )
        for path, content in contents.items()
    ]
    if omitted:
        shown.append(fill(team["omitted"], paths=", ".join(omitted)))
    return fill(team["files"], files="\n\n".join(shown)) if shown else ""


def phase_opening(phase: str, *, tools: bool = False, **values: object) -> str:
    """The first user message of a phase: the assistant's role, then the phase's text with `values` filled in;
    a phase of actions says how to answer, as JSON or, with `tools`, by calling them."""
    team = texts()["team"]
    about = team["phases"][phase]
    text = fill(about["text"], user_title=team["titles"][about["user"]], **values)
    parts = [team["roles"][about["assistant"]], text]
    if about.get("actions"):
        parts.append(team["tools_instruction" if tools else "actions_instruction"])
    return "\n\n".join(parts)


def action_result(outcome: str, **values: object) -> str:
    """What an action gave back; `outcome` is a key of [team]: wrote, edited, deleted, ran, not_found,
    no_match, many_matches, refused."""
    return fill(texts()["team"][outcome], **values)
