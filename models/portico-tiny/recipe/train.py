"""Train the network: python -m recipe.train --out FOLDER --steps N.

Everything depends on the step alone (batches on seed and step, the learning rate and the other tokens' weight on
step / steps), so a run can be repeated or resumed. FOLDER gets log.jsonl, checkpoint.pt (now and then, whole or not
at all) and, at the end, config.json and model.safetensors.
"""

import argparse
import ctypes
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from portico import prompts
from recipe import attention, logbook
from recipe.feed import Feed
from recipe.network import Config, Network, _Head
from recipe.optimizer import Optimizer

# The modules that decide the weights, beside the families, and the arguments that do not.
DECIDING = ["attention.c", "attention.py", "data.py", "network.py", "optimizer.py", "render.py", "sample.py"]
DECIDING += ["train.py", "words.py"]
NOT_DECIDING = {"out", "tokenizer", "init", "resume", "save_minutes", "stop_after_minutes", "log_every"}


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, required=True, help="the whole schedule, also if a run stops earlier")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--init", type=Path, help="model.safetensors of an earlier training, to go on from")
    p.add_argument("--first", type=int, default=0, help="... as if so many steps of this schedule were done")
    p.add_argument(
        "--tokenizer", type=Path, required=True, help="tokenizer.json, as recipe.tokenizer made it"
    )
    p.add_argument("--vocab", type=int, default=1536)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--ffn", type=int, default=768)
    p.add_argument("--context", type=int, default=5120)
    p.add_argument("--optimizer", choices=["adamw", "muon"], default="muon")
    p.add_argument("--lr", type=float, default=5e-3)
    p.add_argument("--embed-lr", type=float, default=0.5, help="the share of --lr that the embedding gets")
    p.add_argument("--betas", type=float, nargs=2, default=[0.9, 0.98])
    p.add_argument("--momentum", type=float, default=0.95)
    p.add_argument("--decay", type=float, default=0.05)
    p.add_argument("--z-loss", type=float, default=0.0)
    p.add_argument("--warmup", type=int, default=100)
    p.add_argument("--flat", type=float, default=0.6, help="part of the steps before the rate falls")
    p.add_argument("--last-rate", type=float, default=0.01)
    p.add_argument("--other-weight", type=float, default=0.3, help="weight of the tokens that are no answer")
    p.add_argument("--other-until", type=float, default=0.4, help="part of the steps after which it is 0")
    p.add_argument("--other-share", type=float, default=0.25, help="part of those tokens that is drawn")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--save-minutes", type=float, default=3.0)
    p.add_argument("--stop-after-minutes", type=float, default=0.0, help="checkpoint and stop; 0: never")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--log-every", type=int, default=50)
    return p.parse_args()


def rate(step: int, a: argparse.Namespace) -> float:
    """The learning rate's factor: a warm-up, flat, then a line down to last_rate."""
    left = (a.steps - step) / max(1, a.steps * (1 - a.flat))
    return min(1.0, (step - a.first + 1) / a.warmup) * min(1.0, max(a.last_rate, left))


def other(step: int, a: argparse.Namespace) -> float:
    """The weight of the other tokens: whole for half of its time, then a line down to 0."""
    e = step / a.steps / max(a.other_until, 1e-9)
    return a.other_weight * min(1.0, max(0.0, 2 - 2 * e))


def starts(tokens: np.ndarray) -> np.ndarray:
    """tokens [B, T] -> int32 [B, T]: where each token's document begins (0 ends a document)."""
    place = np.arange(tokens.shape[1], dtype=np.int32)[None].repeat(len(tokens), 0)
    place[:, 1:][tokens[:, :-1] != 0] = 0
    return np.maximum.accumulate(place, 1)


def choose(tokens: np.ndarray, weights: np.ndarray, seed: int, step: int, a: argparse.Namespace):
    """The rows to predict: tokens, weights [B, T + 1] -> rows, target, weight [M] and the number of answer rows.

    The rows of answers come first, their weights scaled to a sum of 1; then a drawn share of the others; then
    padding of weight 0 up to a multiple of the head's chunk.
    """
    target, given = tokens[:, 1:].ravel(), tokens[:, :-1].ravel()
    weights = weights[:, 1:].ravel().astype(np.float64)
    said = weights > 0
    rows = np.flatnonzero(said)
    weight = [weights[rows] / weights.sum()]
    more, w = rows[:0], other(step, a)
    if w > 0:
        drawn = np.random.default_rng([seed, step]).random(len(target)) < a.other_share
        more = np.flatnonzero(drawn & ~said & (given != 0) & (target != 0))
        weight.append(np.full(len(more), w / max(1, len(more))))
    spare = np.setdiff1d(np.arange(len(target)), np.concatenate([rows, more]))
    pad = min(-(len(rows) + len(more)) % _Head.CHUNK, len(spare))
    weight.append(np.zeros(pad))
    every = np.concatenate([rows, more, spare[:pad]])
    return every, target[every], np.concatenate(weight).astype(np.float32), len(rows)


def keep_memory() -> None:
    """Let malloc keep what is freed (no mmap, no trim): page faults cost a fifth of the time otherwise."""
    try:
        c = ctypes.CDLL(None)
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):
            c.mallopt(option, value)
    except (OSError, AttributeError):
        pass


def made_of(a: argparse.Namespace) -> str:
    """A digest of all that decides the weights: the recipe, the texts it reads, and the arguments. A checkpoint
    of another digest is not gone on with."""
    folder = Path(__file__).parent
    sources = [folder / name for name in DECIDING]
    sources += [
        *sorted((folder / "families").glob("*.py")),
        folder.parent / "chat_template.jinja",
        a.tokenizer,
    ]
    sources += [a.init] if a.init else []
    sources += [Path(prompts.__file__), Path(prompts.__file__).with_name("prompts.toml")]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    kept = {k: v for k, v in vars(a).items() if k not in NOT_DECIDING}
    digest.update(json.dumps(kept, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def save(a: argparse.Namespace, network: Network, optimizer: Optimizer, record: dict) -> None:
    """Write checkpoint.pt whole or not at all."""
    part = a.out / "checkpoint.part"
    state = {"sizes": network.sizes(), "flat": network.flat, "optimizer": optimizer.state(), **record}
    torch.save(state, part)
    part.replace(a.out / "checkpoint.pt")


def main() -> None:
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.set_num_threads(a.threads)
    config = Config(a.vocab, a.hidden, a.layers, a.kv_heads, a.ffn, a.context)
    network = Network(config, seed=a.seed, compiled=True)
    optimizer = Optimizer(network, a.optimizer, a.lr, tuple(a.betas), a.decay, a.momentum, a.embed_lr)
    first, seen, spent, ema = a.first, 0, 0.0, None
    if a.init:
        network.load_state_dict(load_file(a.init))
    digest = made_of(a)
    if a.resume and (a.out / "checkpoint.pt").exists():
        state = torch.load(a.out / "checkpoint.pt", weights_only=True)
        if state["made_of"] != digest:
            sys.exit(
                f"{a.out / 'checkpoint.pt'} is of another recipe or other arguments: remove it to start anew"
            )
        network.flat.copy_(state["flat"])
        network.refresh()
        optimizer.load(state["optimizer"])
        first, seen, spent, ema = (state[k] for k in ("step", "seen", "seconds", "ema"))
    feed = Feed(a.seed, first, a.steps, a.tokenizer)
    log = logbook.opened(a.out / "log.jsonl", first)

    def say(line: dict) -> None:
        text = json.dumps(line)
        log.write(text + "\n")
        log.flush()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    attends = "torch" if attention._LIB is None else "attention.c"
    say(logbook.heading(vars(a), parameters=len(network.flat), step=first, attention=attends))
    begun = saved = mark = time.monotonic()
    recent, recent_seen, waited = [], 0, 0.0
    step = first
    while step < a.steps:
        now = time.monotonic()
        tokens, weights = feed.get(step)
        waited += time.monotonic() - now
        rows, target, weight, n = choose(tokens, weights, a.seed, step, a)
        given = np.ascontiguousarray(tokens[:, :-1])
        tensors = [torch.from_numpy(x) for x in (given, starts(given), rows, target, weight)]
        nll = network.loss(*tensors, z=a.z_loss)
        nll.sum().backward()
        norm = optimizer.step(rate(step, a))
        loss = float(nll.detach()[:n].mean())
        if not np.isfinite(loss + norm):
            sys.exit(f"step {step}: the loss is {loss}, the gradient's norm {norm}")
        ema = loss if ema is None else 0.98 * ema + 0.02 * loss
        count = int((given != 0).sum())
        seen, recent_seen = seen + count, recent_seen + count
        recent.append(loss)
        step += 1
        now = time.monotonic()
        stop = bool(a.stop_after_minutes) and now - begun > 60 * a.stop_after_minutes
        if step % a.log_every == 0 or step == a.steps or stop:
            line = {"step": step, "seconds": spent + now - begun, "tokens": seen}
            line |= {"tokens_per_second": recent_seen / (now - mark), "loss_ema": ema}
            line |= {"loss": float(np.mean(recent)), "rate": rate(step - 1, a), "norm": norm}
            line["waited"] = waited
            say({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()})
            recent, recent_seen, mark, waited = [], 0, now, 0.0
        if stop or step == a.steps or now - saved > 60 * a.save_minutes:
            record = {
                "step": step,
                "seen": seen,
                "seconds": spent + now - begun,
                "ema": ema,
                "made_of": digest,
            }
            save(a, network, optimizer, record)
            saved = time.monotonic()
        if stop:
            break
    feed.close()
    network.save(a.out)
    if step == a.steps:
        # Else the next `make model` would find everything done, and train nothing.
        (a.out / "checkpoint.pt").unlink()


if __name__ == "__main__":
    main()
