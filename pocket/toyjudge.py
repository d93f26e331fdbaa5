"""The recipe of the judge of toys: what it is shown, and the examination it has to pass before its word counts.

Positives are renders, worn as a small autoencoder wears pictures. Two pictures in five are broken on purpose. Some
ways of breaking are kept for the examination. The sides of some toys look alike; which kinds they are is measured,
not assumed: only where all four views are told on true renders may the judge say that a view is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.text2image.judge import BROKEN, COLOURS, KINDS, NUMBERS, VIEWS, JudgeNet, classes, fit, to_tensor
from pocket import lessonpool
from pocket.broken import HALVING, UNSEEN_WAYS, WAYS, broken, worn
from pocket.sides import Sights, gather, of_pool
from pocket.wording import ToySpec

SEED, COUNT = 300_000_000, 8160  # first seed and number of the pictures from all sides
SHARDS = 4  # of each of the two sorts of toys that the text-to-image model is trained on, 2000 pictures each
EPOCHS = 6
EXAM_SEED, EXAM_COUNT = 400_000_000, 2400
SIDED = 0.9  # recall of every view that makes a kind one whose side can be told
REFUSED = 0.05  # share of whole, worn pictures of its training that a judge may take for broken ones
GAUGED = 960  # of the pictures from all sides, that this is set on
HUED = ("erased", "melted", "half_melted", "tiles")  # ways that leave one toy whose colour can be told
SPOILT, ATONCE = 0.4, 6  # share of broken pictures in training, and in how many ways in one batch


def labels(truths: tuple[ToySpec, ...]) -> dict[str, Tensor]:  # int64 [N] each
    """What is true of pictures, as indices of the judge's classes."""
    return {
        "kind": torch.tensor([KINDS.index(truth.kind) for truth in truths]),
        "colour": torch.tensor([COLOURS.index(truth.colour) for truth in truths]),
        "view": torch.tensor([VIEWS.index(truth.view) for truth in truths]),
        "number": torch.tensor([NUMBERS.index(truth.number) for truth in truths]),
    }


def distort(pictures: Tensor, truth: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, 64, 64] as training shows them, and which are broken, bool [B].

    Two in five of the pictures are broken, in six ways a batch. Half a pair is a whole toy: pairs are not halved.
    Every other batch is seen in a mirror, which changes no label.
    """
    if torch.rand((), generator=generator) < 0.5:
        pictures = pictures.flip(3)
    share = int(len(pictures) * SPOILT) // ATONCE
    others = torch.roll(torch.arange(len(pictures)), 1)
    differ, single = truth["kind"] != truth["kind"][others], truth["number"] + truth["number"][others] == 0
    out, marked = pictures.clone(), torch.zeros(len(pictures), dtype=torch.bool)
    for index in torch.randperm(len(WAYS), generator=generator)[:ATONCE].tolist():
        usable = differ & ~marked & (single if WAYS[index] in HALVING else True)
        part = usable.nonzero()[:share, 0]
        out[part] = broken(WAYS[index], pictures[part], pictures[others[part]], generator)
        marked[part] = True
    order = torch.randperm(len(pictures), generator=generator)  # so that all kinds of wear meet all kinds of damage
    back = order.argsort()
    return worn(out[order], generator)[back], marked


@torch.no_grad()
def predict(net: JudgeNet, pictures: Tensor, broken_from: float) -> dict[str, Tensor]:  # [B, 3, 64, 64] -> int64 [B]
    """The class of every head."""
    return classes(_logits(net, pictures), broken_from)


@torch.no_grad()
def gauge(net: JudgeNet, known: Sights) -> float:
    """From which probability on a picture counts as broken, so that few whole pictures of the training do.

    Half a toy shares its probability with a kind; waiting for the broken class to be the likeliest misses many.
    """
    pictures = worn(to_tensor(known.pictures), torch.Generator().manual_seed(SEED))
    likely = _logits(net, pictures)["kind"].softmax(-1)[:, BROKEN]
    return round(float(likely.quantile(1 - REFUSED)), 4)


def _logits(net: JudgeNet, pictures: Tensor) -> dict[str, Tensor]:
    seen = [net(part) for part in pictures.split(256)]
    return {name: torch.cat([logits[name] for logits in seen]) for name in seen[0]}


def examine(net: JudgeNet, pool: Sights, broken_from: float) -> dict[str, object]:
    """Accuracy on unseen toys, clean and worn, and how often each way of breaking is noticed."""
    truth, generator = labels(pool.truths), torch.Generator().manual_seed(EXAM_SEED)
    clean = to_tensor(pool.pictures)
    seen = predict(net, clean, broken_from)
    sides = view_recall(truth, seen)
    sided = [kind for kind, recalls in sides.items() if min(recalls) >= SIDED]
    report: dict[str, object] = {"pictures": len(pool), "broken_from": broken_from, "sided_kinds": sided}
    report["view_recall"] = sides
    tells = torch.tensor([KINDS[kind] in sided for kind in truth["kind"].tolist()])
    for name, found in (("clean", seen), ("worn", predict(net, worn(clean, generator), broken_from))):
        right = {head: found[head] == truth[head] for head in ("kind", "colour", "number")}
        report[name] = {head: _share(values) for head, values in right.items()}
        report[name]["whole"] = _share(found["kind"] != BROKEN)
        report[name]["view_of_sided"] = _share((found["view"] == truth["view"])[tells])
    single = truth["number"] == 0
    one, other = clean[single][:-1], clean[single][1:]
    differ = truth["kind"][single][:-1] != truth["kind"][single][1:]
    one, other = one[differ][:1000], other[differ][:1000]
    report["broken_noticed"] = {
        way: _share(predict(net, broken(way, one, other, generator), broken_from)["kind"] == BROKEN)
        for way in WAYS + UNSEEN_WAYS
    }
    hue = truth["colour"][single][:-1][differ][:1000]
    report["colour_of_broken"] = {
        way: _share(predict(net, broken(way, one, other, generator), broken_from)["colour"] == hue) for way in HUED
    }
    return report


def view_recall(truth: dict[str, Tensor], seen: dict[str, Tensor]) -> dict[str, list[float]]:
    """Of every kind, the share of each view that is recognised, in the order of VIEWS."""
    right, found = seen["view"] == truth["view"], {}
    for index, kind in enumerate(KINDS):
        members = [(truth["kind"] == index) & (truth["view"] == view) for view in range(len(VIEWS))]
        found[kind] = [_share(right[member]) for member in members]
    return found


def _share(right: Tensor) -> float:
    return round(float(right.float().mean()), 4)


def train_everything(work: Path, out: Path, resume: bool, log: Callable[[str], None] = print) -> None:
    """Train the judge, examine it on seeds it has not seen, write its weights and what it achieved.

    Pictures that lie in `work`, and beside it those of the text-to-image model's pool, are not rendered again. A
    training of a few minutes is not resumed in its middle; when it was done, only the examination is repeated.
    """
    done, sides = work / "net.safetensors", work / "sides"
    if resume and done.exists():
        net = JudgeNet()
        net.load_state_dict(load_file(done))
    else:
        sorts = (lessonpool.TOYS, lessonpool.SIDED)
        files = [file for sort in sorts for file in sort.files(work.parent, True, log, SHARDS)]
        sights = gather(sides, SEED, COUNT, log) + of_pool(files)
        net = fit(sights.pictures, labels(sights.truths), distort, seed=SEED, epochs=EPOCHS, log=log)
        save_file(net.state_dict(), done)
    known, unseen = gather(sides, SEED, GAUGED, log), gather(work / "examination", EXAM_SEED, EXAM_COUNT, log)
    store(net.eval(), known, unseen, out, log)


def store(net: JudgeNet, known: Sights, unseen: Sights, folder: Path, log: Callable[[str], None]) -> None:
    """Gauge the judge on pictures it knows and examine it on others, as it is stored; write it with its report."""
    net.load_state_dict({name: _stored(value).to(value.dtype) for name, value in net.state_dict().items()})
    report = examine(net, unseen, gauge(net, known))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: _stored(value) for name, value in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "examination.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    log(f"judge: {report}")


def _stored(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value
