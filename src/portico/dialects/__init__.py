"""Ollama's and OpenAI's languages: bytes to the values of `portico.messages` and back. No I/O.

A dialect is written once and used in both directions: the gateway reads requests and writes replies with
it, the client and the engines do the reverse. `read(write(x)) == x` is its test. The two dialects do not
know each other; what they share stands beside them:

    framing    SSE events and NDJSON lines out of bytes that are split anywhere
    body       JSON of a request into typed shapes, with errors that name the field
    images     data URIs out of what callers send as images
    calls      ids for tool calls where callers leave them out
    assemble   events into a whole Result
"""
