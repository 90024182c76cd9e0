"""Client and AsyncClient: one policy, written once as flows (`flows`, `asks`), and two drivers that carry it out.

servers     which server, with which key        settings    timeouts, retries
fallback    who stands in for it, and when      supports, abilities, remembered   what a server can do
budget, spending, prices   what calls may take, and what they cost
arranged    what both clients decide of what they are told
options     arguments -> requests               outputs     output types -> schemas, answers -> values
enforced    choices and patterns in a server's words (`gbnf`: those of llama.cpp)
exchange    one call: sent, sent again, errors  results, streaming   what comes back
"""
