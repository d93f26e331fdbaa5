"""Does RID protect? How alike are what thieves make from clean, noisy and protected pictures, and the person?

    python -m benchmarks.rid_effect --identities 0:16 --out runs/rid_effect.jsonl
    python -m benchmarks.rid_effect --identities 0:4 --thief lora --out runs/rid_effect.jsonl
    python -m benchmarks.rid_effect --identities 0:4 --budgets 12,24 --purify jpeg75,jpeg50,resize,blur,noise,balance
    python -m benchmarks.rid_effect --model portraits_b --conditions none,clean,random,rid_unseen,pgd_unseen
    python -m benchmarks.rid_effect --thief nobody --purify jpeg75,jpeg50,resize,blur,noise,balance,diffusion
    python -m benchmarks.rid_effect --photo assets/examples/photos/astronaut.png --box 90,0,370,280
    python -m benchmarks.rid_effect --report runs/rid_effect.jsonl

A thief learns a toy person from six pictures and draws 16; the judge compares them with twelve other pictures of that
person. Every row is one thief and says what made it: rows that are there are not computed again, and rows of other
weights or settings stand on lines of their own. Conditions:

    none         nobody is learned: the floor, from the same noise
    clean        the pictures as they are
    random       random signs of the whole budget
    cast         one colour cast of the whole budget for everybody, bluer: what does a network add to that?
    rid          the defender, trained against both portrait models
    rid_keep     the defender on pictures three times as large, which keep their size; the thief shrinks them
    pgd, aspl    search against the thief's own model, as it is (AdvDM) and learning meanwhile (Anti-DreamBooth)
    photoguard   search against its autoencoder alone
    *_unseen     the same against the other portrait model, which has an autoencoder of its own: what the thief starts
                 from was not there when the perturbation was made

With --photo the person is a real one: six views of one photograph are posted, and what thieves draw is compared
with twelve others of it. The judge knows toy people alone and says nothing where it sees no face in them: look at
--sheets, and at the distance to the nearest true picture.

With --device cuda it runs on a GPU, where one process waits for its own kernel launches: start several, each with
identities (0:4, 4:8, ...) and a file of its own; files may be joined, and --report takes several.

The thief "nobody" learns nothing: only what is posted is judged, and what each purification leaves of it is measured.
Settings are chosen on identities from 10,000 on and reported on the first ones. Intervals are bootstrapped over
identities.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.rows import append_row, interval, read_rows
from engines.rid import checkpoints, theft
from engines.rid.defender import GREY_LEVELS
from engines.rid.framing import bands, squares
from engines.rid.identity import Recogniser, shipped
from engines.rid.lab import sheet
from engines.rid.levels import opened, stored, to_float, to_levels
from engines.rid.pipeline import file_revision, load_diffusion
from engines.rid.portrait import middle, protect_levels, taken, upright_rgb
from engines.rid.presets import JUDGE, MODELS, SURROGATES, Surrogate
from engines.rid.purify import left
from engines.rid.quality import structural_similarity, visibility_metrics
from engines.rid.thief import Way
from engines.shared.pipeline import folder_revision
from pocket import people
from studio.flags import seeds_of

FIRST = 50_000_000  # seed of the first reported identity; no model has seen it
LEARNED, HELD_OUT, DRAWN = 6, 12, 16  # pictures of an identity, and from a thief
KEPT = "rid_keep"
LARGER = 3  # times, pictures that keep their size
BUDGETS = (3.0, 4.0, 6.0, 12.0, 16.0, 24.0)  # grey levels: those published, and those of the pocket model
SEARCHED = ("pgd", "photoguard", "aspl")
UNSEEN = ("rid_unseen", *(f"{name}_unseen" for name in SEARCHED))
CONDITIONS = ("none", "clean", "random", "cast", "rid", *SEARCHED, "rid_keep", *UNSEEN)
WITHOUT_BUDGET = ("none", "clean")
OTHER = {
    "portraits": "portraits_b",
    "portraits_b": "portraits",
}  # the model that a thief's does not share a part with
NOBODY = "nobody"
JOB = ("identity", "condition", "budget", "thief", "purify", "model")
KEY = (*JOB, "setting", "maker")  # what has to be equal for a row to be the same row


@dataclass(frozen=True)
class Job:
    """What is asked for; one row."""

    identity: int
    condition: str
    budget: float  # grey levels; 0 where nothing is changed
    thief: str
    purify: str
    model: str  # folder that the thief starts from

    @property
    def kind(self) -> str:
        """The condition, whoever it is made against."""
        return self.condition.removesuffix("_unseen")

    @property
    def defended(self) -> bool:
        """Whether a defender makes the perturbation."""
        return self.kind in ("rid", KEPT)


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    assets: Path  # folder of both portrait models
    judge: Path
    defenders: Path  # trained against both
    unseen: Path  # trained against the one that the thief does not start from
    cache: Path  # of perturbations that were searched for


class Bench:
    """The models, and everything that is the same for many rows. Loads what is asked for, once."""

    def __init__(
        self,
        places: Places,
        surrogate: Surrogate,
        steps: int | None = None,
        photo: np.ndarray | None = None,
        device: str = "cpu",
    ) -> None:
        self.places, self.surrogate, self.steps, self.photo = places, surrogate, steps, photo
        self.device = device  # of models; pictures go there and come back
        self.model = lru_cache(maxsize=2)(lambda name: load_diffusion(places.assets / name).to(device))
        self.pictures = lru_cache(maxsize=1)(self._pictures)
        self.defender = lru_cache(maxsize=6)(lambda path: checkpoints.load(path).to(device))

    @property
    def judge(self) -> Recogniser:
        """Who says whom a picture shows."""
        return shipped(self.places.judge)

    def way(self, job: Job) -> Way:
        """How the thief learns."""
        steps = {"steps": self.steps} if self.steps else {}
        return Way(job.thief, **(self.surrogate.ways[job.thief] | steps))

    def setting(self, job: Job) -> dict[str, Any]:
        """All that decides a row beside its key and its maker."""
        facts = {
            "world": self.world,
            "judge": [short(folder_revision(self.places.judge)), self.judge.threshold],
            "surrogate": short(folder_revision(self.places.assets / job.model)),
            "counts": [LEARNED, HELD_OUT, DRAWN],
            "guidance": self.surrogate.guidance,
        }
        learning = job.thief != NOBODY and job.condition != "none"
        return facts | ({"way": asdict(self.way(job))} if learning else {})

    def maker(self, job: Job) -> dict[str, Any]:
        """What the perturbation was made by. Raises ValueError for a defender that knows the thief's model."""
        if job.defended:
            kept = {"larger": LARGER} if job.kind == KEPT else {}
            return {"defender": short(file_revision(self._file(job))), **kept}
        if job.kind in SEARCHED:
            against = short(folder_revision(self.places.assets / self._against(job)))
            way = Way("full", **self.surrogate.ways["full"])
            how = [theft.ALTERNATION, asdict(way)] if job.kind == "aspl" else theft.SEARCH
            return {"against": against, "how": how}
        return {}

    def key(self, job: Job) -> dict[str, Any]:
        """The key of a job's row."""
        return {**asdict(job), "setting": digest(self.setting(job)), "maker": digest(self.maker(job))}

    def _pictures(self, identity: int) -> np.ndarray:  # uint8 [LEARNED + HELD_OUT, S, S, 3]
        return portraits(identity) if self.photo is None else views(self.photo, self.surrogate.side, identity)

    @cached_property
    def world(self) -> str:
        """Who is shown, and how."""
        return world() if self.photo is None else digest([self.photo.tolist()])

    def _against(self, job: Job) -> str:
        return OTHER[job.model] if job.condition.endswith("_unseen") else job.model

    def _file(self, job: Job) -> Path:
        found = MODELS["pocket"].file_for(job.budget)
        if found is None:
            raise ValueError(f"no defender reaches {job.budget} grey levels")
        unseen = job.condition.endswith("_unseen")
        folder = self.places.unseen if unseen else self.places.defenders
        if unseen and job.model in json.loads((folder / "training.json").read_text())["surrogates"]:
            raise ValueError(f"{folder.name} was trained against {job.model}: nothing about it is unseen")
        return folder / found[1]

    def posted(self, job: Job) -> Tensor:  # [LEARNED, 3, S, S] in [-1, 1], on whole grey levels
        """The pictures as they are handed over; what was searched for is found again in the cache."""
        if job.kind == KEPT:
            protected = [self._kept(job, photo) for photo in self.large(job.identity)]
            return torch.stack([shrunk(photo, self.surrogate.side) for photo in protected])
        clean = self.clean(job)
        if job.kind not in SEARCHED:
            return self._perturbed(job, clean)
        facts = [job.identity, job.kind, job.budget, self.maker(job), digest(to_levels(clean).tolist())]
        path = self.places.cache / f"{digest(facts)}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"posted": to_levels(self._perturbed(job, clean)).contiguous()}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        return to_float(load_file(path)["posted"])

    def clean(self, job: Job) -> Tensor:  # [LEARNED, 3, S, S]
        """What would be posted without any protection."""
        if job.kind == KEPT:
            return torch.stack([shrunk(photo, self.surrogate.side) for photo in self.large(job.identity)])
        return opened(self.pictures(job.identity)[:LEARNED])

    def large(self, identity: int) -> np.ndarray:  # uint8 [LEARNED, H, W, 3]
        """The same pictures at `LARGER` times the size. Raises ValueError for a photo, of which there is one size."""
        if self.photo is not None:
            raise ValueError(f"{KEPT} is measured on toy people")
        return portraits(identity, LEARNED, LARGER * self.surrogate.side)

    @torch.no_grad()
    def _kept(self, job: Job, photo: np.ndarray) -> np.ndarray:  # uint8 [H, W, 3] -> the same
        """As `engines.rid.run` protects a photo that keeps its size."""
        height, width = photo.shape[:2]
        parts = squares(width, height)
        deltas = self._defended(job, taken(Image.fromarray(photo), parts, self.surrogate.side))
        return protect_levels(photo, bands(deltas, parts, height, width, job.budget / GREY_LEVELS))

    def _perturbed(self, job: Job, clean: Tensor) -> Tensor:
        return theft.perturbed(
            job.kind,
            clean,
            eps=job.budget / GREY_LEVELS,
            models=[self.model(self._against(job))] if job.kind in SEARCHED else [],
            surrogate=self.surrogate,
            defend=partial(self._defended, job),
            stream=stream_of(job),
        )

    @torch.no_grad()
    def _defended(self, job: Job, clean: Tensor) -> Tensor:
        """By the smallest defender that reaches the budget."""
        defender = self.defender(self._file(job))
        return defender(clean.to(self.device)).cpu() * (job.budget / GREY_LEVELS / defender.eps)

    def row(self, job: Job) -> tuple[dict[str, Any], Tensor | None]:
        """The row of a job, and what was posted and drawn, [N, 3, S, S]."""
        person, stream = self.pictures(job.identity), stream_of(job)
        row = {**self.key(job), "made_by": self.maker(job), "settings": self.setting(job)}
        row |= {"device": self.device}
        row |= {"family": self._file(job).parent.name} if job.defended else {}
        if job.condition == "none":
            drawn = theft.anybody(self.model(job.model), DRAWN, surrogate=self.surrogate, stream=stream)
            return row | self._likeness(person, None, drawn), drawn
        posted = self.posted(job)
        row |= seen(stored(self.clean(job)), stored(posted)) | self._left(job, posted)
        if job.thief == NOBODY:
            control = theft.identity(self.judge, person[LEARNED:], stored(posted))
            return row | {f"{name}_posted": control.get(name) for name in ("kept", "ism")}, None
        drawn = theft.stolen_pictures(
            self.model(job.model),
            posted,
            self.way(job),
            DRAWN,
            surrogate=self.surrogate,
            purify=job.purify,
            stream=stream,
        )
        return row | self._likeness(person, posted, drawn), torch.cat([posted, drawn])

    def _likeness(self, person: np.ndarray, posted: Tensor | None, drawn: Tensor) -> dict[str, Any]:
        near = round(nearest(person[LEARNED:], stored(drawn)), 2)
        return theft.likeness(self.judge, person[LEARNED:], posted, drawn) | {"nearest": near}

    def _left(self, job: Job, posted: Tensor) -> dict[str, float]:
        """What a purification leaves of a perturbation."""
        if job.purify == "none" or job.condition == "clean":
            return {}
        found = left(
            self.clean(job).to(self.device),
            posted.to(self.device),
            job.purify,
            model=self.model(job.model),
            prompt=self.surrogate.person,
            guidance=self.surrogate.guidance,
            stream=partial(stream_of(job), "purify"),
        )
        return {f"left_{name}": round(value, 4) for name, value in asdict(found).items()}


def stream_of(job: Job) -> Callable[[str], torch.Generator]:
    """Randomness of an identity, the same under every condition."""
    return lambda purpose: torch.Generator().manual_seed(theft.seed_of(FIRST + job.identity, purpose))


def portraits(identity: int, count: int = LEARNED + HELD_OUT, side: int = 64) -> np.ndarray:  # uint8 [count, S, S, 3]
    """Pictures of a person, those that are posted first."""
    shown = [people.sample(FIRST + identity, 1000 * identity + view) for view in range(count)]
    return stored(people.render(shown, side).rgb.float() * 2 - 1)


def shrunk(photo: np.ndarray, side: int) -> Tensor:  # uint8 [H, W, 3] -> [3, side, side] in [-1, 1]
    """The middle of a photo as a thief's model takes it."""
    return opened(np.array(middle(Image.fromarray(photo), side))[None])[0]


def world() -> str:
    """Changes where toy people are drawn otherwise."""
    return digest(people.render([people.sample(FIRST, 0)]).rgb.numpy().tolist())


def views(photo: np.ndarray, side: int, seed: int) -> np.ndarray:  # uint8 [H, W, 3] -> [LEARNED + HELD_OUT, S, S, 3]
    """Squares of a photograph of about the same place and size, half of them mirrored: as near as one photo comes to
    several of one person.
    """
    image, rng = Image.fromarray(photo), np.random.default_rng(seed)
    taken = []
    for view in range(LEARNED + HELD_OUT):
        size = round(min(image.size) * rng.uniform(0.8, 1.0))
        left, top = (int(rng.integers(0, length - size + 1)) for length in image.size)
        square = image.crop((left, top, left + size, top + size)).resize((side, side), Image.Resampling.BICUBIC)
        taken.append(np.asarray(square)[:, :: 1 if view % 2 else -1])
    return np.stack(taken)


def nearest(person: np.ndarray, drawn: np.ndarray) -> float:  # uint8 [N, S, S, 3], [M, S, S, 3] -> grey levels
    """How far what was drawn is from the nearest true picture: root of the mean square, mean over what was drawn."""
    apart = drawn[:, None].astype(np.float32) - person[None]
    return float(np.sqrt(np.square(apart).mean(axis=(2, 3, 4))).min(axis=1).mean())


def seen(clean: np.ndarray, posted: np.ndarray) -> dict[str, float | None]:  # uint8 [N, S, S, 3]
    """How visible a protection is, over all pictures of a person."""
    _, _, psnr = visibility_metrics(clean, posted)
    alike = [structural_similarity(a, b) for a, b in zip(clean, posted, strict=True)]
    return {"psnr": round(psnr, 2) if np.isfinite(psnr) else None, "ssim": round(float(np.mean(alike)), 4)}


def short(revision: str) -> str:
    """Twelve digits of a hash."""
    return revision.rpartition(":")[2][:12]


def digest(facts: Any) -> str:
    """Twelve digits that change with any of the facts; nothing for none."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12] if facts else ""


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """One row each, identity by identity, so that a run that is stopped has whole identities."""
    budgets = [float(text) for text in options.budgets.split(",")]
    for identity in seeds_of(options.identities):
        for purify in options.purify.split(","):
            for condition in options.conditions.split(","):
                if condition not in CONDITIONS:
                    raise ValueError(f"no condition is called {condition!r}: {', '.join(CONDITIONS)}")
                if condition == "none":  # nothing is learned: the same for every thief and purification
                    if purify == options.purify.split(",")[0] and options.thief != NOBODY:
                        yield Job(identity, condition, 0.0, NOBODY, "none", options.model)
                    continue
                for budget in [0.0] if condition in WITHOUT_BUDGET else budgets:
                    yield Job(identity, condition, budget, options.thief, purify, options.model)


def compute(bench: Bench, todo: Iterable[Job], out: Path, sheets: Path | None = None) -> None:
    """Append the rows that are missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    known = {key_of(row) for row in read_rows(out)}
    for job in todo:
        if key_of(bench.key(job)) in known:
            continue
        begun = time.process_time()
        row, shown = bench.row(job)
        row["seconds"] = round(time.process_time() - begun, 1)
        append_row(out, row)
        if sheets and shown is not None:
            sheets.mkdir(parents=True, exist_ok=True)
            name = "-".join(str(row[part]) for part in KEY if row[part] != "")
            Image.fromarray(sheet(stored(shown), 11)).save(sheets / f"{name}.png")
        print({name: value for name, value in row.items() if name not in ("settings", "made_by")}, flush=True)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """The key as it is compared; rows of old files lack parts of it."""
    return tuple(row.get(name) for name in KEY)


COLUMNS = (
    *("condition", "grey levels", "thief", "purified", "model", "setting", "maker", "n", "kept identity"),
    *("less than noise", "less than clean", "similarity", "similarity less than noise", "less what posted ones lose"),
    *("n with a face", "kept in what is posted"),
    *(
        "similarity posted",
        "no face",
        "Fréchet",
        "nearest",
        "BRISQUE",
        "PSNR",
        "SSIM",
        "left: energy",
        "left: latents",
    ),
)


def table(rows: list[dict[str, Any]]) -> str:
    """One line a condition, weights and setting: means over identities with 95 % intervals.

    Primary is the kept identity: it is known of every thief, whereas similarity is that of the pictures with a face,
    of those thieves alone who made any.
    """
    groups: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        groups[key_of(row)[1:]][row["identity"]] = row
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for key in sorted(groups, key=lambda key: [str(part) for part in (*key[2:6], *key[:2], key[6])]):
        condition, budget, *where, _ = key
        found = groups[key]
        noise = groups.get(("random", budget, *where, ""), {}) if condition != "random" else {}
        clean = groups.get(("clean", 0.0, *where, ""), {}) if condition != "clean" else {}
        family = next(iter(found.values())).get("family", "")
        cells = [condition, f"{budget:g}", *key[2:-1], f"{family} {key[-1]}".strip(), len(found)]
        cells += [mean_of(found, "kept")]
        cells += [less(found, noise), less(found, clean), mean_of(found, "ism")]
        lost, posted = ({who: fell(found, noise, name).get(who) for who in found} for name in ("ism", "ism_posted"))
        cells += [shown(list(lost.values())), shown([difference(lost[who], posted[who]) for who in found])]
        cells += [sum(row.get("ism") is not None for row in found.values())]
        names = ("kept_posted", "ism_posted", "fdfr", "fid", "nearest", "brisque", "psnr", "ssim")
        cells += [mean_of(found, name) for name in (*names, "left_energy", "left_latents")]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def mean_of(rows: dict[int, dict[str, Any]], name: str) -> str:
    """Mean over identities and its interval; nothing where nobody has a value."""
    return shown([row.get(name) for row in rows.values()])


def less(rows: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]) -> str:
    """By how much less identity is kept than under another condition, paired by identity."""
    return shown(list(fell(rows, others, "kept").values()))


def fell(rows: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]], name: str) -> dict[int, float | None]:
    """By how much less a number is than under another condition, of everybody who is known under both."""
    return {who: difference(others[who].get(name), row.get(name)) for who, row in rows.items() if who in others}


def difference(one: float | None, other: float | None) -> float | None:
    """Nothing where one of them is not known."""
    return None if one is None or other is None else one - other


def shown(values: list[float | None]) -> str:
    """Mean and 95 % interval."""
    known = np.array([np.nan if value is None else float(value) for value in values])
    if np.isnan(known).all():
        return ""
    mean, low, high = interval(known, np.random.default_rng(0))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def photographed(path: Path, box: str) -> np.ndarray:  # uint8 [H, W, 3]
    """The part of a photo that shows a face and its surroundings."""
    image = upright_rgb(Image.open(path))
    return np.asarray(image.crop(tuple(map(int, box.split(",")))) if box else image)


def main() -> None:
    """Read the flags; compute what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(MODELS["pocket"].folder)
    parser.add_argument("--identities", default="0:16", help="e.g. 0:16; for choosing settings 10000:10008")
    parser.add_argument("--conditions", default="none,clean,random,rid,pgd")
    parser.add_argument("--budgets", default=",".join(f"{budget:g}" for budget in BUDGETS), help="grey levels")
    parser.add_argument("--thief", default="full", choices=["full", "lora", "inversion", NOBODY])
    parser.add_argument("--purify", default="none", help="one or several, comma separated")
    parser.add_argument("--model", default="portraits", choices=list(OTHER), help="what the thief starts from")
    parser.add_argument("--assets", type=Path, default=folder.parent, help="folder of both portrait models")
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--defender", type=Path, default=folder, help="folder of defenders")
    parser.add_argument(
        "--unseen", type=Path, help="of those of rid_unseen (default: beside the defender, rid_alone)"
    )
    parser.add_argument("--steps", type=int, help="of the thief's learning")
    parser.add_argument("--out", type=Path, default=Path("runs/rid_effect.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("runs/rid_posted"), help="of what was searched for")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of every row")
    parser.add_argument("--photo", type=Path, help="a real person instead of toy ones")
    parser.add_argument("--box", default="", help="left,top,right,bottom of the face and its surroundings, in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of models: cpu or cuda")
    parser.add_argument("--report", type=Path, nargs="+", help="only print the table of these files together")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.report is None:
        unseen = options.unseen or folder.parent / "rid_alone"
        asked = {"rid": options.defender, "rid_keep": options.defender, "rid_unseen": unseen}
        for condition, needed in asked.items():
            if condition in options.conditions.split(",") and not (needed / "training.json").exists():
                parser.error(f"{needed} holds no defenders; `python -m pocket {needed.name}` trains them")
        places = Places(options.assets, options.judge, options.defender, unseen, options.cache)
        photo = photographed(options.photo, options.box) if options.photo else None
        bench = Bench(places, SURROGATES["pocket"], options.steps, photo, options.device)
        compute(bench, jobs(options), options.out, options.sheets)
    print(table([row for file in options.report or [options.out] for row in read_rows(file)]))


if __name__ == "__main__":
    main()
