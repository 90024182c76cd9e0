"""A conversation that is kept: the second question stands on the first answer."""

from portico import Client, Conversation

with Client() as client:
    talk = Conversation(client, system="You are a helpful programming assistant.")
    print(talk.ask("How do I implement a binary search in Go?", temperature=0))
    print(talk.ask("Thank you!", temperature=0))
    talk.save("binary-search.json")  # Conversation.load(...) goes on with it
