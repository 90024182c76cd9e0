"""A tool: the model asks for the call, the function is called, and its result is told to the model."""

from portico import Client


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return {"Paris": "18 degrees"}.get(city, "12 degrees")


with Client() as client:
    run = client.run("What is the weather in Paris?", tools=[get_weather], temperature=0)
for step in run.steps:
    print(f"{step.call.name}({step.call.arguments}) -> {step.outcome}")
print(run)
