"""Training the identity embedder on toy people, and the tests it has to pass before its word counts.

A face recogniser looks at the face. So everybody wears other hair, hats and clothes in every picture, and pictures
whose face alone is spoilt show nobody. A fourth of what it learns from is perturbed against itself, so that what is
posted with a perturbation is still known, and its word on what a thief draws counts. Identities of training, of the
choice of a threshold and of the examination have seeds of their own. Broken samples of two kinds that it has never
been shown (noise, blobs) are kept for the examination.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engines.rid.identity import SIDE, WIDTH, Embedder, cosine_softmax_loss
from engines.rid.train import to_float
from engines.shared.training import Recipe, beside, best_device, load_average, train
from pocket import people, world
from pocket.crew import batches, spread
from pocket.toypool import levels

TRAINING, CHOOSING, EXAMINING = 20_000_000, 30_000_000, 40_000_000  # first seeds of identities
IDENTITIES, VIEWS, TOYS = 1200, 12, 3000
SHARD = 100  # identities of a file
STRENGTH = 24 / 127.5  # of perturbations shown in training, in [-1, 1]: the largest budget of the defenders
TOGETHER = 10  # identities that one process draws at a time
RECIPE = Recipe(seed=11, steps=5000, batch=96, ranks=1, cooldown=3500, muon_rate=0.02, adam_rate=2e-3, ema=0.995)


class Student(nn.Module):
    """The embedder, and a direction for every identity of the training."""

    def __init__(self, identities: int = IDENTITIES, seed: int = RECIPE.seed) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedder = Embedder()
        self.centres = nn.Parameter(torch.randn(identities, WIDTH) * 0.1)


@dataclass
class Recognition:
    """The task of `engines.shared.training`: tell identities apart, and people from what is none."""

    people: list[Path]
    toys: Path
    pictures: Tensor | None = None  # uint8 [N, VIEWS, 3, SIDE, SIDE]
    others: Tensor | None = None  # uint8 [M, 3, SIDE, SIDE]

    def __call__(self, student: nn.Module, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of `count` pictures of people and a third as many of what is none."""
        if self.pictures is None or self.others is None:
            self.pictures = torch.cat([load_file(path)["pictures"] for path in self.people])
            self.others = load_file(self.toys)["pictures"]
        who = torch.randint(len(self.pictures), (count,), generator=generator)
        view = torch.randint(self.pictures.shape[1], (count,), generator=generator)
        toys = self.others[torch.randint(len(self.others), (count // 6,), generator=generator)]
        shown, toys, who = beside(student, [self.pictures[who, view], toys, who])
        shown = to_float(shown)
        nobody = torch.cat([to_float(toys), spoilt(shown[: count // 6], generator)])
        pictures = augmented(torch.cat([shown, nobody]), generator)
        is_face = (torch.arange(len(pictures)) < count).to(pictures)
        some = count // 4
        hardened = misled(student, pictures[:some], who[:some], generator)
        embeddings, faces = student.embedder(torch.cat([hardened, pictures[some:]]))
        return {
            "identity": cosine_softmax_loss(embeddings[:count], student.centres, who),
            "face": F.binary_cross_entropy_with_logits(faces, is_face),
        }


def augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S] in [-1, 1]
    """Mirrored, moved, scaled, tinted, blurred as an autoencoder blurs, and grainy, each by chance.

    As all that is done to pictures here: where they are, by chances drawn on the processor.
    """
    count = len(pictures)

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator).to(pictures)

    theta = pictures.new_zeros(count, 2, 3)
    scale = 1 + 0.12 * (2 * draw() - 1)
    theta[:, 0, 0] = scale * torch.where(draw() < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = 0.08 * (2 * draw(2) - 1)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    small = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    moved = moved + draw(1, 1, 1) * (draw(1, 1, 1) < 0.5) * (small - moved)
    tinted = moved * (1 + 0.15 * (2 * draw(3, 1, 1) - 1)) + 0.12 * (2 * draw(1, 1, 1) - 1)
    grain = torch.randn(tinted.shape, generator=generator).to(tinted) * 0.12 * draw(1, 1, 1) * (draw(1, 1, 1) < 0.4)
    cover = draw(1, 1, 1) * (draw(1, 1, 1) < 0.4) * patterns(tinted, generator)
    return (tinted + grain + STRENGTH * cover).clamp(-1, 1)


def patterns(like: Tensor, generator: torch.Generator) -> Tensor:  # [B, C, S, S], in [-1, 1]
    """Noise of a grain of 1 to 16 pixels, hard or soft: what perturbations look like that are not made for a face."""
    made = []
    for _ in range(len(like)):
        grain = 2 ** int(torch.randint(5, (), generator=generator))
        coarse = 2 * torch.rand(1, like.shape[1], SIDE // grain, SIDE // grain, generator=generator) - 1
        if torch.rand((), generator=generator) < 0.5:
            made.append(F.interpolate(coarse.sign(), (SIDE, SIDE)))
        else:
            made.append(F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(-1, 1))
    return torch.cat(made).to(like)


def misled(student: nn.Module, pictures: Tensor, who: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures a step away, at most half of `STRENGTH`, towards what the student would take for somebody else.

    Learning from these keeps a perturbation from misleading the judge without hurting the face (Goodfellow et al.
    2015, from a random start as Wong et al. 2020).
    """
    size = STRENGTH / 2 * torch.rand(len(pictures), 1, 1, 1, generator=generator).to(pictures)
    start = size * (2 * torch.rand(pictures.shape, generator=generator).to(pictures) - 1)
    moved = (pictures + start).clamp(-1, 1).requires_grad_(True)
    with torch.enable_grad():
        embeddings, faces = student.embedder(moved)
        loss = cosine_softmax_loss(embeddings, student.centres, who) - F.logsigmoid(faces).mean()
    (gradient,) = torch.autograd.grad(loss, moved)
    return (pictures + (start + size * gradient.sign()).clamp(-size, size)).clamp(-1, 1).detach()


def spoilt(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S]
    """Pictures of people made into pictures of nobody: shuffled tiles, melted, or a part enlarged."""
    way = torch.randint(4, (len(pictures),), generator=generator)
    ways = tiles(pictures, generator), melted(pictures, generator), enlarged(pictures), defaced(pictures, generator)
    made = torch.stack(ways)
    return made[way.to(made.device), torch.arange(len(pictures), device=made.device)]


def tiles(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S]
    """Sixteen tiles in another order."""
    side = pictures.shape[-1] // 4
    parts = pictures.unflatten(2, (4, side)).unflatten(4, (4, side)).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)
    mixed = parts[torch.randperm(16, generator=generator).to(parts.device)].unflatten(0, (4, 4))
    return mixed.permute(2, 3, 0, 4, 1, 5).reshape(pictures.shape)


def melted(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S]
    """Every point fetched from up to a quarter of the side away, smoothly, in some pictures less."""
    count = len(pictures)
    far = 0.18 + 0.3 * torch.rand(count, 1, 1, 1, generator=generator)
    coarse = (far * torch.randn(count, 2, 6, 6, generator=generator)).to(pictures)
    field = F.interpolate(coarse, pictures.shape[-2:], mode="bicubic", align_corners=False)
    grid = F.affine_grid(torch.eye(2, 3).to(pictures).expand(count, 2, 3), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid + field.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)


def defaced(pictures: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S]
    """Hat, hair and clothes as they were, the middle of the picture, where the face is, melted and blotched."""
    count, side = len(pictures), pictures.shape[-1]
    row, column = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    across, down = (0.1 * torch.randn(2, count, 1, 1, generator=generator)).unbind()
    near = ((row - down) / 0.55).square() + ((column - across) / 0.5).square()
    where = ((1.2 - near) / 0.4).clamp(0, 1)[:, None].to(pictures)
    coarse = torch.randn(count, 3, 12, 12, generator=generator).to(pictures)
    blots = F.interpolate(0.5 * coarse, (side, side), mode="bicubic", align_corners=False)
    strong = torch.rand(count, 1, 1, 1, generator=generator).to(pictures)
    return torch.lerp(pictures, (melted(pictures, generator) + strong * blots).clamp(-1, 1), where)


def enlarged(pictures: Tensor) -> Tensor:  # [B, 3, S, S]
    """The lower right quarter alone, where shoulder meets background."""
    half = pictures.shape[-1] // 2
    return F.interpolate(pictures[..., half:, half:], pictures.shape[-2:], mode="bilinear", align_corners=False)


def noise(count: int, generator: torch.Generator) -> Tensor:  # [B, 3, SIDE, SIDE]
    """Uniform noise of several grains."""
    grains = [2 ** int(torch.randint(5, (), generator=generator)) for _ in range(count)]
    coarse = [2 * torch.rand(1, 3, SIDE // g, SIDE // g, generator=generator) - 1 for g in grains]
    return torch.cat([F.interpolate(part, (SIDE, SIDE)) for part in coarse])


def blobs(count: int, generator: torch.Generator) -> Tensor:  # [B, 3, SIDE, SIDE]
    """Soft clouds of colour, as of a model that has learned no shapes."""
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(-1, 1)


def portraits(first: int, identities: int, views: int) -> Tensor:  # uint8 [N, views, 3, SIDE, SIDE]
    """Pictures of the identities `first ...`, every view of every identity from a seed of its own."""
    parts = spread(partial(_people, views=views), batches(first, identities, TOGETHER))
    return torch.from_numpy(np.concatenate(list(parts))).unflatten(0, (identities, views))


def _people(seeds: Sequence[int], views: int) -> np.ndarray:  # uint8 [N views, 3, SIDE, SIDE]
    return levels(
        people.render(
            [
                people.disguised(people.sample(who, who * 97 + view), who * 97 + view)
                for who in seeds
                for view in range(views)
            ],
            SIDE,
        )
    )


def toys(first: int, count: int) -> Tensor:  # uint8 [N, 3, SIDE, SIDE]
    """Pictures of toys, none of which is a person."""
    return torch.from_numpy(np.concatenate(list(spread(_toys, batches(first, count, 10 * TOGETHER)))))


def _toys(seeds: Sequence[int]) -> np.ndarray:  # uint8 [N, 3, SIDE, SIDE]
    return levels(world.render([world.sample_scene(seed) for seed in seeds], SIDE))


def fill(folder: Path, resume: bool, log: Callable[[str], None]) -> Recognition:
    """Render what has not been rendered yet."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [folder / f"people-{index}.safetensors" for index in range(IDENTITIES // SHARD)]
    parts = [(path, TRAINING + index * SHARD) for index, path in enumerate(shards)]
    for path, first in parts:
        if not (resume and path.exists()):
            log(f"rendering people, part {parts.index((path, first)) + 1} of {len(parts)}")
            _write(path, portraits(first, SHARD, VIEWS))
    others = folder / "toys.safetensors"
    if not (resume and others.exists()):
        _write(others, toys(TRAINING, TOYS))
    return Recognition(shards, others)


def _write(path: Path, pictures: Tensor) -> None:
    save_file({"pictures": pictures.contiguous()}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


@torch.no_grad()
def examine(net: Embedder, identities: int = 200, views: int = 6, seed: int = 5) -> dict[str, float]:
    """Verification of unseen identities at thresholds chosen on others, and what it makes of broken samples.

    Of every pair of pictures of the examined identities, as many of different ones as of the same are drawn; all of
    them wear other hair and clothes in every picture. A
    thief's pictures are compared with the mean of a person's true ones, which is nearer to each of these than they
    are to one another: that has a threshold of its own, "mean_threshold".
    """
    generator = torch.Generator().manual_seed(seed)
    chosen, examined = (_embedded(net, *who, views) for who in ((CHOOSING, identities // 2), (EXAMINING, identities)))
    threshold = best_threshold(*_pairs(chosen, generator))
    same, different = _pairs(examined, generator)
    mean_threshold = best_threshold(*_against_means(chosen, generator))
    own_mean, other_mean = _against_means(examined, generator)
    shown = to_float(portraits(EXAMINING, identities, 2)).flatten(0, 1)
    mean = F.normalize(examined.sum(dim=1), dim=-1).repeat_interleave(2, dim=0)
    perturbed = {
        "patterns": (shown + STRENGTH * patterns(shown, generator)).clamp(-1, 1),
        "attacked": attacked(net, shown, mean, STRENGTH),
        "attacked_half": attacked(net, shown, mean, STRENGTH / 2),
    }
    broken = {
        "defaced": defaced(shown, generator),
        "tiles": tiles(shown, generator),
        "melted": melted(shown, generator),
        "noise": noise(len(shown), generator),
        "blobs": blobs(len(shown), generator),
        "toys": to_float(toys(EXAMINING, len(shown))),
    }
    report = {
        "threshold": threshold,
        "verification": _right(same, different, threshold),
        "mean_threshold": mean_threshold,
        "mean_verification": _right(own_mean, other_mean, mean_threshold),
        "mean_accepted": float((own_mean > mean_threshold).double().mean()),
        "mean_accepted_of_others": float((other_mean > mean_threshold).double().mean()),
        "accepted_at_1_percent_false": float((same > different.quantile(0.99)).double().mean()),
        "cosine_same": float(same.mean()),
        "cosine_different": float(different.mean()),
    }
    for name, pictures in perturbed.items():
        embeddings, faces = _asked(net, pictures)
        accepted = (faces > 0) & ((embeddings * mean).sum(dim=1) > mean_threshold)
        report[f"{name}_accepted"] = float(accepted.double().mean())
    own, faces = _asked(net, shown)
    report["faces_found"] = float((faces > 0).double().mean())
    for name, pictures in broken.items():
        embeddings, faces = _asked(net, pictures)
        report[f"{name}_taken_for_a_face"] = float((faces > 0).double().mean())
        report[f"{name}_cosine"] = float((embeddings * own).sum(dim=1).mean())
    return {name: round(value, 4) for name, value in report.items()}


@torch.enable_grad()
def attacked(net: Embedder, pictures: Tensor, whose: Tensor, size: float) -> Tensor:  # [N, 3, S, S], [N, D]
    """Pictures moved by at most `size` to where the judge itself least takes them for `whose`: the worst of all
    perturbations of that size, which no defender knows (projected gradient, Madry et al. 2018, ten steps)."""
    made = []
    for part, direction in zip(pictures.split(200), whose.split(200), strict=True):
        part, direction = part.to(net.face.weight), direction.to(net.face.weight)
        moved = part.clone()
        for _ in range(10):
            moved.requires_grad_(True)
            likeness = (net(moved)[0] * direction).sum()
            (gradient,) = torch.autograd.grad(likeness, moved)
            moved = (part + (moved - size / 4 * gradient.sign() - part).clamp(-size, size)).clamp(-1, 1).detach()
        made.append(moved.cpu())
    return torch.cat(made)


def _embedded(net: Embedder, first: int, identities: int, views: int) -> Tensor:  # [N, V, D]
    return _asked(net, to_float(portraits(first, identities, views)).flatten(0, 1))[0].unflatten(0, (-1, views))


def _asked(net: Embedder, pictures: Tensor) -> tuple[Tensor, Tensor]:  # [N, 3, SIDE, SIDE] -> [N, D], [N]
    """What the network says, wherever it is."""
    device = net.face.weight.device
    parts = [net(part.to(device)) for part in pictures.split(400)]
    embeddings, faces = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return embeddings, faces


def best_threshold(same: Tensor, different: Tensor) -> float:  # cosines, as many of each
    """The cosine above which pictures are best taken for the same person: fewest errors of both kinds together."""
    scores = torch.cat([same, different]).sort().values
    return float(scores[torch.stack([torch.tensor(_right(same, different, t)) for t in scores]).argmax()])


def _right(same: Tensor, different: Tensor, threshold: float | Tensor) -> float:
    return float(((same > threshold).double().mean() + (different <= threshold).double().mean()) / 2)


def _somebody_else(count: int, identities: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of different identities."""
    who = torch.randint(identities, (count,), generator=generator)
    return who, (who + torch.randint(1, identities, (count,), generator=generator)) % identities


def _pairs(embeddings: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # [N, V, D]
    """Cosines of all pairs of the same identity, and of as many of different ones."""
    identities, views, _ = embeddings.shape
    one, other = torch.triu_indices(views, views, 1)
    same = (embeddings[:, one] * embeddings[:, other]).sum(dim=-1).flatten()
    who, whom = _somebody_else(len(same), identities, generator)
    seen = torch.randint(views, (2, len(same)), generator=generator)
    return same, (embeddings[who, seen[0]] * embeddings[whom, seen[1]]).sum(dim=-1)


def _against_means(embeddings: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # [N, V, D]
    """Cosines of every picture with the mean of the others of its identity, and with such a mean of another one."""
    identities, views, _ = embeddings.shape
    means = F.normalize(embeddings.sum(dim=1, keepdim=True) - embeddings, dim=-1)  # all but one, [N, V, D]
    same = (embeddings * means).sum(dim=-1).flatten()
    who, whom = _somebody_else(len(same), identities, generator)
    seen = torch.randint(views, (2, len(same)), generator=generator)
    return same, (embeddings[who, seen[0]] * means[whom, seen[1]]).sum(dim=-1)


def hidden(name: str, weight: Tensor) -> bool:
    """Kernels but the first."""
    return ".body." in name and weight.ndim == 4 and weight.shape[1] > 3


def make(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """Render, train, examine; writes the weights and what they achieved."""
    task = fill(work / "pictures", resume, log)
    student = Student()
    log(f"identity: {RECIPE.steps} steps of {RECIPE.batch}; progress in {work / 'log.txt'}")
    train(student, task, RECIPE, work, hidden, resume and (work / "state.pt").exists())
    load_average(work, student)
    net = student.embedder.eval()
    net.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})  # as it is stored
    report = examine(net.to(best_device()))
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in net.state_dict().items()}, out / "model.safetensors")
    (out / "examination.json").write_text(json.dumps(report, indent=2) + "\n")
    log(f"identity: {report}")
