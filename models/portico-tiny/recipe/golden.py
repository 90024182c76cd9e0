"""What transformers makes of a few prompts with the shipped weights: the truth that other tests compare with.

    python -m recipe.golden                     writes golden.json beside the model

For each prompt: its token ids; the greedy answer with the log probability of every token and of the five likeliest
in its place; and beam search with 2 and 4 beams. Computed in float32 from the bfloat16 weights. Prompts are taken
at which no greedy choice is a near tie, so that every engine has to give the same answer.

Beams are those of transformers: early_stopping, length_penalty 1. `cumulative` is the sum of the log probabilities
of the answer's tokens, the end token included where there is one; `score` is that divided by their number, and
orders the beams.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recipe import families, render
from recipe.questions import Asked, question
from recipe.serving import FOLDER

PROMPTS, TRIES = 8, 40
MARGIN = 0.2
"""Log probability by which the first token leads the second, at least; rounding moves them by less than 0.05."""
TOP, BEAMS = 5, (2, 4)
MOST_TOKENS, LONGEST_PROMPT = 64, 1200
Json = dict[str, Any]


def candidates() -> Iterator[list[Asked]]:
    """For each prompt the questions that may become it: those of one part of the table after the other."""
    entries = families.entries()
    for at in range(PROMPTS):
        part = entries[at * len(entries) // PROMPTS : (at + 1) * len(entries) // PROMPTS]
        yield [
            Asked(f"{entry.name}/{n}", question(entry, "trained", n, "golden"))
            for entry in part
            for n in range(TRIES)
        ]


class Truth:
    """transformers, with the folder's weights."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ends = self.model.generation_config.eos_token_id

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode([at for at in ids if at not in self.ends]))

    def generated(self, prompt: Sequence[int], **how: Any) -> Any:
        ids = self.torch.tensor([list(prompt)])
        with self.torch.inference_mode():
            return self.model.generate(
                ids,
                attention_mask=self.torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=MOST_TOKENS,
                return_dict_in_generate=True,
                **how,
            )

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """[token of the answer, vocabulary]: from one pass over everything, without a cache."""
        with self.torch.inference_mode():
            logits = self.model(self.torch.tensor([[*prompt, *answer]])).logits[0]
        return logits[len(prompt) - 1 : -1].log_softmax(-1)

    def answer(self, made: Sequence[int], prompt: Sequence[int]) -> list[int]:
        """What follows the prompt, up to and with the first end; batches are filled up behind it."""
        found = []
        for token in list(made)[len(prompt) :]:
            found.append(int(token))
            if token in self.ends:
                break
        return found


def golden(truth: Truth, asked: Asked) -> Json | None:
    """None for a prompt that is too long, does not end, or has a near tie."""
    text = render.prompt(asked.sample)
    prompt = truth.ids(text)
    if len(prompt) > LONGEST_PROMPT:
        return None
    answer = truth.answer(truth.generated(prompt).sequences[0].tolist(), prompt)
    if answer[-1] not in truth.ends:
        return None
    rows = truth.logprobs(prompt, answer)
    tokens: list[Json] = []
    for row, token in zip(rows, answer, strict=True):
        best, places = row.topk(TOP)
        if places[0] != token or best[0] - best[1] < MARGIN:
            return None
        tokens.append(
            {
                "id": token,
                "logprob": round(float(row[token]), 5),
                "top": [[int(at), round(float(value), 5)] for at, value in zip(places, best, strict=True)],
            }
        )
    return {
        "name": asked.name,
        "prompt": text,
        "prompt_ids": prompt,
        "greedy": {"text": truth.text(answer), "tokens": tokens},
        "beams": {str(count): beams(truth, prompt, count) for count in BEAMS},
    }


def beams(truth: Truth, prompt: Sequence[int], count: int) -> list[Json]:
    made = truth.generated(
        prompt,
        num_beams=count,
        num_return_sequences=count,
        early_stopping=True,
        length_penalty=1.0,
        output_scores=True,
    )
    found = []
    for sequence, score in zip(made.sequences.tolist(), made.sequences_scores.tolist(), strict=True):
        answer = truth.answer(sequence, prompt)
        rows = truth.logprobs(prompt, answer)
        cumulative = sum(float(row[token]) for row, token in zip(rows, answer, strict=True))
        if abs(cumulative / len(answer) - score) > 1e-3:
            raise ValueError(f"a beam's score is {score}, its tokens make {cumulative / len(answer)}")
        found.append(
            {
                "ids": answer,
                "text": truth.text(answer),
                "ended": answer[-1] in truth.ends,
                "cumulative": round(cumulative, 5),
                "score": round(score, 6),
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=FOLDER, help="the folder with the safetensors")
    options = parser.parse_args(arguments)
    import torch
    import transformers

    truth = Truth(options.model.resolve())
    found: list[Json] = []
    for choices in candidates():
        made = next((one for one in (golden(truth, each) for each in choices) if one is not None), None)
        if made is None:
            print(f"No question like {choices[0].name} has a clear answer: it is left out.", file=sys.stderr)
        else:
            found.append(made)
    used = {token["id"] for one in found for token in one["greedy"]["tokens"]}
    used |= {at for one in found for token in one["greedy"]["tokens"] for at, _ in token["top"]}
    whole = {
        "weights": hashlib.sha256((options.model / "model.safetensors").read_bytes()).hexdigest(),
        "made_with": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": "float32",
        },
        "ends": sorted(truth.ends),
        "texts": {str(at): truth.tokenizer.decode([at]) for at in sorted(used)},
        "prompts": found,
    }
    path = options.model / "golden.json"
    path.write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(found)} prompts: {path}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
