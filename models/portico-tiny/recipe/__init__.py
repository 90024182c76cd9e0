"""The recipe of portico-tiny: its training text, tokenizer, training, export and evaluation.

sample.py says what a sample is; words.py draws what samples are made of; families/ makes them; render.py
turns them into the text that the chat template renders; tokenizer.py, network.py, data.py and train.py make
the weights; export.py writes them. The files that are shipped are measured by evaluate.py, which asks what
questions.py chooses and judging.py judges, and by compare.py, which asks other engines the same.
"""
