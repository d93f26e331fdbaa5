"""How fast is RID? Seconds a picture beside the published architecture with the same weights, and beside one search.

    python -m benchmarks.rid_speed [--side 512] [--depth 14] [--batch 1,16] [--repeats 3] [--threads 1]

The published network keeps all 152 tensors and computes its attention as written out; ours drops what never has an
influence, folds what is constant into its weights and lets the library fuse attention. Weights are random, which
costs the same. Prints seconds (the best of the repeats; with one thread the seconds it worked, so that other
processes do not count), largest difference of the outputs in grey levels, parameters, and the time that the network's
matrix products would take at the speed of a bare one, which no rewriting with the same products goes below; then what
a pocket protection costs beside a search of 90 steps for the same picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS, Attention, Defender, Shape
from engines.rid.pgd import protect_by_search
from engines.rid.pipeline import load_diffusion
from engines.rid.plain import Plain
from engines.rid.presets import MODELS, SURROGATES


class WrittenOut(Attention):
    """Attention as the published code computes it where nothing is fused: scores, softmax, sum."""

    def forward(self, x: Tensor) -> Tensor:  # [B, N, C]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


def published(shape: Shape, eps: float) -> Defender:
    """All weights, random, none of them zero; attention written out."""
    torch.manual_seed(0)
    defender = Defender(shape, eps)
    with torch.no_grad():
        for name, weight in defender.named_parameters():
            if name != "pos_embed":
                weight.normal_(0, 0.02)
    for block in defender.blocks:
        block.attn.__class__ = WrittenOut
    return defender.eval()


def seconds(act: Callable[[], object], repeats: int) -> float:
    """The best of several runs; on a GPU what was queued is waited for, on a processor only work counts."""
    on_card = torch.cuda.is_available()
    clock = time.perf_counter if on_card or torch.get_num_threads() > 1 else time.process_time
    best = float("inf")
    for _ in range(repeats):
        begun = clock()
        act()
        if on_card:
            torch.cuda.synchronize()
        best = min(best, clock() - begun)
    return best


@torch.no_grad()
def compare(shape: Shape, batch: int, repeats: int, device: str) -> None:
    """One line for a batch size."""
    theirs = published(shape, 12 / 255).to(device)
    ours = Plain(theirs)
    pictures = torch.rand(batch, 3, shape.input_size, shape.input_size, device=device) * 2 - 1
    difference = float((theirs(pictures) - ours(pictures)).abs().max()) * GREY_LEVELS
    sizes = [sum(weight.numel() for weight in net.state_dict().values()) / 1e6 for net in (theirs, ours)]
    turns = [[seconds(lambda net=net: net(pictures), 1) / batch for net in (theirs, ours)] for _ in range(repeats)]
    slow, fast = map(min, zip(*turns, strict=True))
    bound = multiplications(shape) / speed_of_products(shape, device, repeats)
    line = f"batch {batch}: published {slow:.3f} s, {sizes[0]:.0f} M; ours {fast:.3f} s, {sizes[1]:.0f} M a picture; "
    line += f"{slow / fast:.2f} times; outputs differ by {difference:.1e} grey levels; the matrix products alone "
    line += f"take {bound:.3f} s, so that {slow / bound:.2f} times is the most"
    if device != "cpu":
        with torch.autocast("cuda", torch.bfloat16):
            half = seconds(lambda: ours(pictures), repeats) / batch
            apart = float((ours(pictures).float() - theirs(pictures)).abs().max()) * GREY_LEVELS
        line += f"; in bfloat16 {half * 1000:.1f} ms, by {apart:.2f} grey levels"
    print(line, flush=True)


def multiplications(shape: Shape) -> float:
    """Floating-point operations of one picture's matrix products, attention among them."""
    tokens, width = shape.grid**2, shape.hidden_size
    block = 2 * tokens * width * (4 * width + 2 * width * shape.mlp_ratio) + 4 * tokens**2 * width
    return shape.depth * block + 2 * 2 * tokens * width * 3 * shape.patch_size**2


def speed_of_products(shape: Shape, device: str, repeats: int) -> float:
    """Floating-point operations a second of the largest product in a block, alone."""
    hidden = int(shape.hidden_size * shape.mlp_ratio)
    left = torch.randn(shape.grid**2, shape.hidden_size, device=device)
    right = torch.randn(shape.hidden_size, hidden, device=device)
    return 2 * left.numel() * hidden / seconds(lambda: left @ right, 10 * repeats)


def search(repeats: int) -> None:
    """The pocket defender beside a search for the same picture, where both are trained."""
    folder, name = Path(MODELS["pocket"].folder), MODELS["pocket"].files[24.0]
    if not (folder / name).is_file():
        print("the pocket defender is not trained yet: no comparison with a search")
        return
    defender, model = Plain(checkpoints.load(folder / name)), load_diffusion(Path(SURROGATES["pocket"].repo))
    picture = torch.rand(1, 3, model.side, model.side) - 0.5
    with torch.no_grad():
        fast = seconds(lambda: defender(picture), 5 * repeats)
    slow = seconds(
        lambda: protect_by_search(
            [model],
            picture,
            eps=24 / GREY_LEVELS,
            rounds=10,
            inner=9,
            prompt="a person",
            generator=torch.Generator().manual_seed(0),
        ),
        1,
    )
    print(f"pocket: defender {fast * 1000:.1f} ms, search of 90 steps {slow:.1f} s: {slow / fast:.0f} times")


def main() -> None:
    """Read the flags and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--depth", type=int, default=14, help="blocks; fewer, to look at something quickly")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for batch in options.batch.split(","):
        compare(Shape(options.side, depth=options.depth), int(batch), options.repeats, device)
    search(options.repeats)


if __name__ == "__main__":
    main()
