"""The models of this machine where no server runs: the library, with the methods of `Server`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import UTC, datetime

from portico import config_file
from portico.cli.replies import Damaged, Details, Listed, Pulling, Shown, Tags, Unfinished
from portico.gateway import ollama_shapes as shapes
from portico.inprocess import library
from portico.library import Library, ModelFile, Progress, model_info, parameter_size


class OnDisk:
    """Nothing else uses the data folder's models meanwhile but perhaps a server on another port: the library
    is made for that."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        config = config_file.load(None, environ, {})
        self._library: Library = library(config, environ, config_file.data_home(config, environ))

    def listing(self) -> Tags:
        here = self._library
        return Tags(
            models=tuple(_listed(model) for model in here.models()),
            damaged=tuple(Damaged(name=name, reason=error.reason) for name, error in here.problems().items()),
            unfinished=tuple(
                Unfinished(name=pull.name, completed=pull.completed, total=pull.total)
                for pull in here.unfinished()
            ),
        )

    def show(self, model: str) -> Shown:
        return _shown(self._library.find(model))

    def delete(self, model: str) -> None:
        self._library.delete(model)

    def copy(self, source: str, destination: str) -> None:
        self._library.copy(source, destination)

    def pull(self, model: str) -> Iterator[Pulling]:
        """Runs its own event loop; leaving the iteration stops the pull and keeps what has arrived."""
        with asyncio.Runner() as runner:
            steps = self._library.pull(model)
            assert isinstance(steps, AsyncGenerator)
            try:
                while (step := runner.run(_next(steps))) is not None:
                    yield Pulling(
                        status=step.status,
                        digest=step.digest or "",
                        total=step.total,
                        completed=step.completed,
                    )
            finally:
                runner.run(steps.aclose())


async def _next(steps: AsyncGenerator[Progress, None]) -> Progress | None:
    return await anext(steps, None)


def _listed(model: ModelFile) -> Listed:
    facts = model.facts
    return Listed(
        name=model.name,
        size=facts.size or 0,
        digest=facts.digest or "",
        modified_at=_time(facts.modified),
        details=_details(model),
        capabilities=facts.capabilities,
    )


def _shown(model: ModelFile) -> Shown:
    facts = model.facts
    return Shown(
        details=_details(model),
        capabilities=facts.capabilities,
        model_info=dict(model_info(facts)),
        parameters=shapes.parameter_lines(model.parameters),
        template=shapes.go_template(model.template, facts.capabilities),
        system=model.system,
        modelfile=shapes.modelfile(
            model.name, model.parent or model.name, model.template, model.system, model.parameters
        ),
        license=facts.license or "",
        modified_at=_time(facts.modified),
    )


def _details(model: ModelFile) -> Details:
    facts = model.facts
    return Details(
        format=facts.format,
        family=facts.family,
        parameter_size=parameter_size(facts.parameters),
        quantization_level=facts.quantization,
        context_length=facts.context,
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
