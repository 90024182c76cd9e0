"""Client and AsyncClient: one policy, written once as flows (`flows`, `asks`), and two drivers that carry it out.

servers     which server, with which key        settings    timeouts, retries
options     arguments -> requests               outputs     output types -> schemas, answers -> values
exchange    one call: sent, sent again, errors  results, streaming   what comes back
"""
