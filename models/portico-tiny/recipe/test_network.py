"""The network against transformers' Qwen3ForCausalLM, and the attention kernel against plain torch."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from recipe import attention as kernel  # noqa: E402
from recipe.network import Config, Network  # noqa: E402


@pytest.mark.parametrize("config", [Config(96, 128, 2, 1, 192), Config(96, 256, 3, 2, 384)])
def test_logits_equal_transformers(config: Config) -> None:
    transformers = pytest.importorskip("transformers")
    network = Network(config, torch.float32, seed=3)
    for name, x in network.master.items():
        x.normal_(1.0 if "norm" in name else 0.0, 0.1)
    network.refresh()
    settings = {**config.hf(), "dtype": "float32"}
    other = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings)).eval()
    missing, unexpected = other.load_state_dict(network.state_dict(), strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    other.tie_weights()
    tokens = torch.randint(0, 96, (2, 70))
    with torch.no_grad():
        assert (network.logits(tokens) - other(tokens).logits).abs().max() < 1e-4


def test_saved_files_load_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    network = Network(Config(96, 128, 2, 1, 192), seed=4)
    network.save(tmp_path)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert other.dtype == torch.bfloat16
    for name, x in network.state_dict().items():
        assert torch.equal(x.to(torch.bfloat16), other.state_dict()[name])


@pytest.mark.parametrize("heads", [(2, 1), (4, 2)])
def test_kernel_equals_torch(heads: tuple[int, int]) -> None:
    """Outputs and gradients of attention.c, over documents that begin inside the row."""
    if kernel._LIB is None:
        pytest.skip("attention.c needs gcc and avx512_bf16")
    nq, nk = heads
    start = torch.tensor([[0] * 50 + [50] * 90 + [140] * 116, [0] * 256], dtype=torch.int32)
    x = [torch.randn(2, 256, n, 64).bfloat16().requires_grad_() for n in (nq, nk, nk)]
    y = [a.detach().float().requires_grad_() for a in x]
    g = torch.randn(2, 256, nq, 64).bfloat16()
    got, want = kernel.attention(*x, start), kernel.plain(*y, start)
    pairs = zip(
        [got, *torch.autograd.grad(got, x, g)],
        [want, *torch.autograd.grad(want, y, g.float())],
        strict=True,
    )
    for a, b in pairs:
        assert (a.float() - b).abs().max() < 0.01 * b.abs().max()


def test_loss_gradient_equals_autograd() -> None:
    """The hand-made gradient of the head, against torch's cross entropy in float32."""
    network = Network(Config(96, 128, 2, 1, 192), torch.float32, seed=5)
    tokens = torch.randint(1, 96, (8, 128))
    start = torch.zeros(8, 128, dtype=torch.int32)
    target, weight = torch.randint(0, 96, (1024,)), torch.rand(1024)
    rows = torch.randperm(1024)
    network.loss(tokens, start, rows, target, weight).sum().backward()
    mine = network.grad.clone()
    network.grad.zero_()
    logits = network.logits(tokens).view(1024, -1)[rows]
    (torch.nn.functional.cross_entropy(logits, target, reduction="none") * weight).sum().backward()
    assert (mine - network.grad).abs().max() < 1e-4 * network.grad.abs().max()
