"""The process that makes batches: python -m recipe.feed SEED FIRST_STEP LAST_STEP TOKENIZER, batches on stdout.

A batch is a header (step, rows, length as three int32), tokens (uint16) and weights (uint8). It imports no torch, and
the pipe bounds how far it runs ahead.
"""

import os
import queue
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from recipe import data

HEADER = struct.Struct("<iii")


class Feed:
    """The batches of the steps first .. last - 1, in order, from a process of their own."""

    def __init__(self, seed: int, first: int, last: int, tokenizer: Path, ahead: int = 16):
        command = [sys.executable, "-m", "recipe.feed", str(seed), str(first), str(last), str(tokenizer)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        environment |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        self.queue: queue.Queue = queue.Queue(ahead)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Fills the queue; a process that ends, even in the middle of a batch, ends it with None."""
        pipe = self.process.stdout
        try:
            while len(head := pipe.read(HEADER.size)) == HEADER.size:
                step, rows, length = HEADER.unpack(head)
                tokens = np.frombuffer(pipe.read(2 * rows * length), np.uint16).reshape(rows, length)
                weights = np.frombuffer(pipe.read(rows * length), np.uint8).reshape(rows, length)
                self.queue.put((step, tokens.astype(np.int64), weights))
        except ValueError:
            pass  # half a batch: `get` says so
        finally:
            self.queue.put(None)

    def get(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """tokens int64 [B, T + 1] and the weights of the answers uint8 [B, T + 1] of this step."""
        item = self.queue.get()
        if item is None:
            raise RuntimeError("the process that makes batches has ended early")
        if item[0] != step:
            raise RuntimeError(f"batch {item[0]} came where {step} was due")
        return item[1], item[2]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def main() -> None:
    seed, first, last = map(int, sys.argv[1:4])
    out = sys.stdout.buffer
    try:
        for step in range(first, last):
            tokens, mask = data.batches(seed, step, last, sys.argv[4])
            out.write(HEADER.pack(step, *tokens.shape))
            out.write(np.ascontiguousarray(tokens, dtype=np.uint16).tobytes())
            out.write(np.ascontiguousarray(mask, dtype=np.uint8).tobytes())
            out.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    main()
