"""An explanation, printed while it is made."""

from portico import Client

with (
    Client() as client,
    client.stream(
        "Explain quantum computing in simple terms",
        system="You are a helpful physics teacher.",
        temperature=0,
    ) as answer,
):
    for piece in answer.text():
        print(piece, end="", flush=True)
    print(f"\n\n{answer.result.usage.output_tokens} tokens in {answer.result.timing.total:.2f} s")
