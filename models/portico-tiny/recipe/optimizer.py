"""AdamW over the flat buffer, or Muon for the layers' matrices with AdamW for the rest."""

import torch

from recipe.network import Network


def _adam(p, g, m, v, scale, lr, decay, b1, b2, fix1, fix2):
    """One AdamW step on flat slices; scale clips the gradient. All scalars are tensors, so nothing recompiles."""
    g = g.float() * scale
    m2 = m + (1 - b1) * (g - m)
    v2 = v + (1 - b2) * (g * g - v)
    p2 = p * (1 - lr * decay) - lr * (m2 / fix1) / ((v2 / fix2).sqrt() + 1e-8)
    p.copy_(p2)
    m.copy_(m2)
    v.copy_(v2)


# The five steps of Polar Express (arXiv 2505.16932) in place of one fixed Newton-Schulz polynomial.
POLAR = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """x [n, r, c] with r <= c -> the nearest matrices with orthonormal rows, roughly, in bfloat16."""
    x = (x / (x.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)).bfloat16()
    for a, b, c in POLAR:
        s = x @ x.transpose(1, 2)
        s = torch.baddbmm(s, s, s, beta=b, alpha=c)
        x = torch.baddbmm(x, s, x, beta=a)
    return x


class Optimizer:
    """Steps a network's master weights from its gradients."""

    def __init__(
        self,
        network: Network,
        kind: str,
        lr: float,
        betas: tuple[float, float],
        decay: float,
        momentum: float = 0.95,
        embed_lr: float = 1.0,
        compiled: bool = True,
    ):
        self.network, self.kind, self.lr, self.betas, self.decay = network, kind, lr, betas, decay
        self.momentum, self.embed_lr = momentum, embed_lr
        r = network.ranges
        end = len(network.flat) if kind == "adamw" else r["qkv"].start
        self.parts = [(slice(0, r["embed"].start), 0.0, 1.0), (r["embed"], decay, embed_lr)]
        if kind == "adamw":
            self.parts.append((slice(r["qkv"].start, end), decay, 1.0))
        self.m, self.v = torch.zeros(end), torch.zeros(end)
        self.step_count = 0
        self.buffer = torch.zeros(len(network.flat) - end)
        self._adam = torch.compile(_adam, dynamic=True) if compiled else _adam

    def step(self, rate: float, clip: float = 1.0) -> float:
        """One step at lr * rate; returns the gradient's norm. Clears the gradients."""
        n = self.network
        norm = float(n.grad.float().norm())
        scale = torch.tensor(min(1.0, clip / (norm + 1e-9)))
        self.step_count += 1
        b1, b2 = self.betas
        fix1, fix2 = 1 - b1**self.step_count, 1 - b2**self.step_count
        for part, decay, factor in self.parts:
            scalars = (self.lr * rate * factor, decay, b1, b2, fix1, fix2)
            tensors = [torch.tensor(s) for s in scalars]
            self._adam(n.flat[part], n.grad[part], self.m[part], self.v[part], scale, *tensors)
        if self.kind == "muon":
            self._muon(self.lr * rate)
        n.grad.zero_()
        n.refresh()
        return norm

    def _pieces(self, whole: torch.Tensor) -> list[list[torch.Tensor]]:
        """The matrices of a buffer laid out like flat[matrices], as views, in groups of one shape [n, r, c]."""
        c, first = self.network.config, self.network.ranges["qkv"].start
        shapes = c.shapes()
        v = {}
        for name in ("qkv", "o", "gate_up", "down"):
            r = self.network.ranges[name]
            v[name] = whole[r.start - first : r.stop - first].view(shapes[name])
        q, k = c.heads * 64, c.kv_heads * 64
        return [
            [v["qkv"][:, :q], v["o"]],
            [v["qkv"][:, q : q + k], v["qkv"][:, q + k :]],
            [v["gate_up"][:, : c.ffn].mT, v["gate_up"][:, c.ffn :].mT, v["down"]],
        ]

    def _muon(self, lr: float) -> None:
        first = self.network.ranges["qkv"].start
        g, p = self.network.grad[first:].float(), self.network.flat[first:]
        self.buffer.lerp_(g, 1 - self.momentum)
        update = g.lerp_(self.buffer, self.momentum)
        p.mul_(1 - lr * self.decay)
        for ours, theirs in zip(self._pieces(update), self._pieces(p), strict=True):
            x = orthogonal(torch.cat(ours))
            size = 0.2 * max(x.shape[1:]) ** 0.5
            for new, old in zip(x.split(len(theirs[0])), theirs, strict=True):
                old.add_(new, alpha=-lr * size)

    def state(self) -> dict:
        return {"m": self.m, "v": self.v, "buffer": self.buffer, "step_count": self.step_count}

    def load(self, state: dict) -> None:
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.buffer.copy_(state["buffer"])
        self.step_count = state["step_count"]
