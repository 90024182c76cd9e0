"""A model that is here, as listings show it and engines start it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from portico.engines import Facts, ModelSpec
from portico.errors import Unsupported
from portico.messages import JSON, Message, Value

Origin = Literal["bundled", "hub", "upload", "ollama", "path", "elsewhere"]


class ModelFile(Value, frozen=True, kw_only=True):
    name: str
    """Canonical, with its tag."""
    origin: Origin
    """Where its weights come from."""
    path: str
    """The GGUF file (of several shards the first), or the folder of safetensors."""
    runs: str
    """The name its replica has. Models with the same weights share it, so that they are loaded once."""
    facts: Facts
    """`size` counts every file, `digest` and `modified` are always set."""
    weights: Facts = Facts()
    """The facts of the model it runs as."""
    projector: str = ""
    repository: str = ""
    """The hub's, where the weights are from there."""
    gguf: str = ""
    """For safetensors: a repository known to have the same weights as GGUF."""
    removable: bool = False
    """Whether `delete` may be asked for it."""

    # What /api/create put on top of the weights.
    parent: str = ""
    system: str = ""
    template: str = ""
    parameters: dict[str, JSON] = {}
    messages: tuple[Message, ...] = ()

    @property
    def made(self) -> bool:
        """Whether anything was put on top of the weights, here or by Ollama."""
        return bool(self.system or self.template or self.parameters or self.messages)

    def spec(self) -> ModelSpec:
        """What the embedded engine needs to run it; settings of a config are added with
        `msgspec.structs.replace`. Raises Unsupported for what it cannot run."""
        if self.facts.format != "gguf":
            instead = f" Pull the same weights as GGUF: portico pull {self.gguf}" if self.gguf else ""
            raise Unsupported(
                f"{self.name} is a safetensors model; the embedded engine runs GGUF files.{instead}",
                model=self.name,
                feature="safetensors",
            )
        return ModelSpec(
            name=self.runs,
            engine="llamacpp",
            source=self.path,
            mmproj=self.projector or None,
            facts=self.weights,
        )


def bundled_folder() -> Path | None:
    """The folder of the model that comes with the package: inside the installed package, or in the checkout
    that an editable install points to."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "models" / "portico-tiny", package.parent.parent / "models" / "portico-tiny"):
        if (folder / "portico-tiny.gguf").is_file():
            return folder
    return None
