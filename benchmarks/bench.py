"""The gateway's benchmark: direct, nginx, LiteLLM and Portico before the same mock upstream, in one run.

    python benchmarks/bench.py --targets direct,nginx,portico,litellm --repeat 3

README.md says what is measured and how. Standard library only; the programs in C do the work.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import report
from driver import add_arguments, machine, prepared, say
from processes import ChildFailed, wait_for_quiet
from scenarios import ESSENTIAL, SCENARIOS, Scenario, at_rest, check, measure, problem, scenarios_for
from targets import BUILD, PORTICO_COMMAND, TARGETS, Place, Unavailable, install_litellm, start, versions


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Portico beside nginx and LiteLLM.")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--targets", default="direct,nginx,portico,litellm", help="comma-separated")
    parser.add_argument("--repeat", type=int, default=3, help="rounds over all targets; medians are shown")
    parser.add_argument(
        "--quick", action="store_true", help="half as long windows, and only what the goals need"
    )
    parser.add_argument("--scenarios", help=f"comma-separated, of {', '.join(names)}")
    parser.add_argument("--output", type=Path, default=BUILD / "results.json", help="where the JSON goes")
    parser.add_argument(
        "--portico-command", default=PORTICO_COMMAND, help="another way to start the server under test"
    )
    add_arguments(parser)
    arguments = parser.parse_args()
    default = ESSENTIAL if arguments.quick else names
    arguments.targets = arguments.targets.split(",")
    arguments.scenarios = arguments.scenarios.split(",") if arguments.scenarios else default
    for given, known in ((arguments.targets, TARGETS), (arguments.scenarios, names)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return arguments


class Run:
    """What one run has found so far; `measure_all` fills it."""

    def __init__(self, place: Place, arguments: argparse.Namespace) -> None:
        self.place = place
        self.arguments = arguments
        self.results: report.Results = {}
        self.failures: dict[str, str] = {}  # target -> why it could not be measured
        self.notes: dict[str, None] = {}  # in order, each once

    def measure_all(self) -> None:
        targets = list(self.arguments.targets)
        if "litellm" in targets:
            self._prepare_litellm()
        for number in range(self.arguments.repeat):
            say(f"round {number + 1} of {self.arguments.repeat}")
            # Targets take turns, so that a slow hour of the machine touches all of them.
            for name in targets:
                if name in self.failures and name not in self.results:
                    continue
                try:
                    self._measure_target(name)
                except (ChildFailed, Unavailable) as why:
                    self.failures[name] = str(why)
                    self.notes[f"{name}, round {number + 1}: {why}"] = None
                    say(f"  {name}: {why}")

    def _prepare_litellm(self) -> None:
        try:
            if complaint := install_litellm(self.place.home):
                self.notes[f"litellm: pip check says: {complaint}"] = None
        except Unavailable as why:
            self.failures["litellm"] = str(why)

    def _measure_target(self, name: str) -> None:
        """One round of one target: started fresh, checked, measured, ended."""
        scenarios = scenarios_for(name, self.arguments.scenarios)
        with start(name, self.place) as target:
            check(target, self.place, ollama=any(scenario.ollama for scenario in scenarios))
            kept = self.results.setdefault(name, {})
            if target.server:
                kept.setdefault("rest", []).append({"rss_kb": at_rest(target)})
            for scenario in map(self._sized, scenarios):
                wait_for_quiet(self.place.cores, self.arguments.wait_quiet)
                found = measure(scenario, target, self.place)
                kept.setdefault(scenario.name, []).append(found)
                if trouble := problem(scenario, found):
                    self.notes[f"{name}, {trouble}"] = None
                say(
                    f"  {name:8} {scenario.name:10} {found['requests_per_s']:>9,.0f} requests/s"
                    f" {found['chunks_per_s']:>9,.0f} chunks/s  {found['cpu_cores']:.2f} cores"
                    f"  other load {found['other_load']:.2f}{'*' if found['disturbed'] else ''}"
                )

    def _sized(self, scenario: Scenario) -> Scenario:
        return replace(scenario, seconds=scenario.seconds / 2) if self.arguments.quick else scenario


def main() -> int:
    arguments = read_arguments()
    with prepared(arguments, arguments.portico_command) as place:
        began = datetime.now(UTC)
        run = Run(place, arguments)
        run.measure_all()
        measured_on, found_versions = machine(place), versions(list(run.results), place)

    verdicts = report.verdicts(run.results)
    used = ", ".join(f"{name} {version}" for name, version in found_versions.items())
    print(f"\n{measured_on['cpu']}, Linux {measured_on['kernel']}; rounds: {arguments.repeat}; {used}.")
    print(
        "The server on one core, mock and client on another. * = others used over 0.1 cores in every window.\n"
    )
    print(report.table(run.results, run.failures))
    print()
    print(report.verdict_table(verdicts))
    if run.notes:
        print("\n" + "\n".join(f"- {note}" for note in run.notes))

    record = {
        "began": began.isoformat(timespec="seconds"),
        "machine": measured_on,
        "versions": found_versions,
        "quick": arguments.quick,
        "verdicts": verdicts,
        "failures": run.failures,
        "notes": list(run.notes),
        "results": run.results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nEvery window is in {arguments.output}.")
    return 1 if arguments.check and not all(each["reached"] for each in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
