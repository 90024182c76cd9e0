"""How sure the model was of each token, and what it would have said instead."""

import math

from portico import Client

with Client() as client:
    answer = client.chat("What is 2+2? Answer in one word.", temperature=0, logprobs=2)
for token in answer.logprobs:
    others = ", ".join(f"{other.token!r} {math.exp(other.logprob):.1%}" for other in token.top)
    print(f"{token.token!r:8} {math.exp(token.logprob):6.1%}   ({others})")
