"""How fast is RID? Seconds a picture beside the published architecture with the same weights, and beside one search.

    python -m benchmarks.rid_speed [--side 512] [--depth 14] [--batch 1,16] [--repeats 3] [--threads 1]
    python -m benchmarks.rid_speed --device cuda --repeats 10

The published network keeps all 152 tensors and computes its attention as written out; ours drops what never has an
influence, folds what is constant into its weights and lets the library fuse attention. Weights are random, which
costs the same. Prints seconds (the best of the repeats; with one thread the seconds it worked, so that other
processes do not count), largest difference of the outputs in grey levels, parameters, and the time that the network's
matrix products would take at the speed of a bare one, which no rewriting with the same products goes below; then what
a pocket protection costs beside a search of 90 steps for the same picture.

On a GPU times are between events on it, after runs that warm it up, the median of the repeats; every number type and
way of computing has a line of its own, with the memory it takes at its peak beside the weights of both networks.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from engines.rid import checkpoints
from engines.rid.defender import GREY_LEVELS, Attention, Defender, Shape
from engines.rid.pgd import protect_by_search
from engines.rid.pipeline import load_diffusion
from engines.rid.plain import Plain
from engines.rid.presets import MODELS, SURROGATES

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
WARMING = 3  # runs before the first that counts


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
    """The best of several runs; with one thread only work counts."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.process_time
    best = float("inf")
    for _ in range(repeats):
        begun = clock()
        act()
        best = min(best, clock() - begun)
    return best


def on_card(act: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of one run on a GPU (the median), and bytes of its peak beyond what was there before."""
    for _ in range(WARMING):
        act()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        act()
        mark.record()
    torch.cuda.synchronize()
    spent = [one.elapsed_time(other) / 1000 for one, other in pairwise(marks)]
    return median(spent), float(torch.cuda.max_memory_allocated() - before)


@torch.no_grad()
def compare(shape: Shape, batch: int, repeats: int) -> None:
    """One line for a batch size on a processor."""
    theirs = published(shape, 12 / 255)
    ours = Plain(theirs)
    pictures = torch.rand(batch, 3, shape.input_size, shape.input_size) * 2 - 1
    difference = float((theirs(pictures) - ours(pictures)).abs().max()) * GREY_LEVELS
    sizes = [sum(weight.numel() for weight in net.state_dict().values()) / 1e6 for net in (theirs, ours)]
    turns = [[seconds(partial(net, pictures), 1) / batch for net in (theirs, ours)] for _ in range(repeats)]
    slow, fast = map(min, zip(*turns, strict=True))
    bound = multiplications(shape) / speed_of_products(shape, repeats)
    line = f"batch {batch}: published {slow:.3f} s, {sizes[0]:.0f} M; ours {fast:.3f} s, {sizes[1]:.0f} M a picture; "
    line += f"{slow / fast:.2f} times; outputs differ by {difference:.1e} grey levels; the matrix products alone "
    line += f"take {bound:.3f} s, so that {slow / bound:.2f} times is the most"
    print(line, flush=True)


@torch.no_grad()
def compare_on_card(shape: Shape, batch: int, repeats: int) -> None:
    """On a GPU a line for every number type, theirs and ours in turn, beside theirs in single precision."""
    theirs = published(shape, 12 / 255).cuda()
    networks = {"published": theirs, "ours": Plain(theirs)}
    pictures = torch.rand(batch, 3, shape.input_size, shape.input_size, device="cuda") * 2 - 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    exact = theirs(pictures)
    for kind, dtype in (("float32", torch.float32), ("tf32", torch.float32), *HALVES.items()):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
        for who, network in networks.items():
            network, shown = copy.deepcopy(network).to(dtype), pictures.to(dtype)
            spent, memory = on_card(partial(network, shown), repeats)
            apart = float((network(shown).float() - exact).abs().max()) * GREY_LEVELS
            speed = multiplications(shape) * batch / spent / 1e12
            line = f"batch {batch}, {kind}, {who}: {spent / batch * 1000:.2f} ms a picture, "
            line += f"{batch / spent:.0f} a second, "
            line += f"{speed:.0f} TFLOP/s in products, {memory / 2**30:.2f} GiB at its peak, "
            print(f"{line}off by {apart:.1e} grey levels", flush=True)


def multiplications(shape: Shape) -> float:
    """Floating-point operations of one picture's matrix products, attention among them."""
    tokens, width = shape.grid**2, shape.hidden_size
    block = 2 * tokens * width * (4 * width + 2 * width * shape.mlp_ratio) + 4 * tokens**2 * width
    return shape.depth * block + 2 * 2 * tokens * width * 3 * shape.patch_size**2


def speed_of_products(shape: Shape, repeats: int) -> float:
    """Floating-point operations a second of the largest product in a block, alone."""
    hidden = int(shape.hidden_size * shape.mlp_ratio)
    left = torch.randn(shape.grid**2, shape.hidden_size)
    right = torch.randn(shape.hidden_size, hidden)
    return 2 * left.numel() * hidden / seconds(lambda: left @ right, 10 * repeats)


def search(repeats: int, device: str) -> None:
    """The pocket defender beside a search for the same picture, where both are trained."""
    folder, name = Path(MODELS["pocket"].folder), MODELS["pocket"].files[24.0]
    if not (folder / name).is_file():
        print("the pocket defender is not trained yet: no comparison with a search")
        return
    defender = Plain(checkpoints.load(folder / name)).to(device)
    model = load_diffusion(Path(SURROGATES["pocket"].repo)).to(device)
    picture = torch.rand(1, 3, model.side, model.side, device=device) - 0.5

    def searched(rounds: int) -> Tensor:
        asked = {"eps": 24 / GREY_LEVELS, "prompt": "a person", "generator": torch.Generator().manual_seed(0)}
        return protect_by_search([model], picture, rounds=rounds, inner=9, **asked)

    if device == "cpu":
        fast, slow = seconds(lambda: defender(picture), 5 * repeats), seconds(lambda: searched(10), 1)
    else:
        searched(1)
        begun = time.perf_counter()
        searched(10).cpu()
        slow = time.perf_counter() - begun
        fast, _ = on_card(lambda: defender(picture), 5 * repeats)
    print(f"pocket: defender {fast * 1000:.1f} ms, search of 90 steps {slow:.1f} s: {slow / fast:.0f} times")


def main() -> None:
    """Read the flags and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--depth", type=int, default=14, help="blocks; fewer, to look at something quickly")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on = compare if options.device == "cpu" else compare_on_card
    for batch in options.batch.split(","):
        on(Shape(options.side, depth=options.depth), int(batch), options.repeats)
    search(options.repeats, options.device)


if __name__ == "__main__":
    main()
