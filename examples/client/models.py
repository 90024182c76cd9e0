"""What the server has."""

from portico import Client

with Client() as client:
    for model in client.models():
        print(f"{model.id}: {model.context} tokens of context")
