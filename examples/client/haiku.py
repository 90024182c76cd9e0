"""A haiku, with a system message and a temperature. Start `portico serve` before."""

from portico import Client

with Client() as client:
    poem = client.generate(
        "Write a haiku about programming",
        system="You are a creative assistant who specializes in writing haikus.",
        temperature=0.7,
        seed=1,
    )
print(poem)
