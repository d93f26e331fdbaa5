"""Published checkpoints of the defender, made safe to use: read without running anything, and tied to their budget.

A published file holds weights only. Its budget is in its name, and the wrong one would silently double the noise. So
a file is converted once to safetensors, whose header then says budget, heads and the hash of the file it came from;
and a table beside it, `budgets.json`, says which budget belongs to which hash, so that no file passes under another
name. Dead weights are dropped on the way. Nothing pickled is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engines.rid.defender import GREY_LEVELS, Defender, Shape, fold, shape_of
from studio.errors import InvalidInput

PUBLISHED_HEADS = 8
PUBLISHED_NAME = re.compile(r"eps-?(\d+)_255")
REMEDY = "Download the file again, or choose another one."
# What reading a file raises that is no checkpoint, or was made to look like one.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
TRAINED = "trained"  # source of a defender that was made here
REGISTRY = "budgets.json"  # sha256 of a checkpoint -> grey levels


@dataclass(frozen=True)
class Budget:
    """What a checkpoint's weights do not say."""

    eps: float  # in [-1, 1]
    num_heads: int
    source: str  # sha256 of the published file


def budget_of_name(name: str) -> float:
    """eps in [-1, 1] from a published name such as "ASDS-eps-12_255.bin". Raises InvalidInput for others."""
    found = PUBLISHED_NAME.search(name)
    if found is None:
        raise InvalidInput(
            f"The name {name[:80]!r} does not say which budget its weights were trained for.",
            "Keep the published name, such as ASDS-eps-12_255.bin, or say the budget.",
        )
    return _positive(name, int(found[1]) / 255)


def _positive(name: str, eps: float) -> float:
    """The budget, in [-1, 1]. Raises InvalidInput for none, for less, and for more than there are colours."""
    if not 0 < eps <= 1:  # so is what is no number
        raise InvalidInput(
            f"{name}: {eps * GREY_LEVELS:g} grey levels are no budget.", f"Use more than 0, up to {GREY_LEVELS:g}."
        )
    return eps


def convert(source: Path, target: Path, eps: float | None = None, num_heads: int = PUBLISHED_HEADS) -> Budget:
    """Write a published checkpoint as folded safetensors, and both hashes into the registry beside it.

    `eps` in [-1, 1] is the budget where the name says none. Raises InvalidInput for anything that is no checkpoint,
    and for a budget that the name or the registry contradicts.
    """
    digest = sha256_of(source)
    if eps is None:
        eps = budget_of_name(source.name)
    _positive(source.name, eps)
    if PUBLISHED_NAME.search(source.name):
        _agree(source.name, "its name", budget_of_name(source.name), eps)
    registry = registered(target.parent)
    _agree(source.name, REGISTRY, registry.get(digest, eps), eps)
    weights = _read(source)
    _check(weights, num_heads)
    told = {"eps": repr(eps), "num_heads": str(num_heads), "source": digest, "engine": "rid"}
    save_file({name: tensor.contiguous() for name, tensor in fold(weights).items()}, target, metadata=told)
    known = {name: round(budget * GREY_LEVELS, 6) for name, budget in registry.items()}
    known |= dict.fromkeys((digest, sha256_of(target)), round(eps * GREY_LEVELS, 6))
    fresh = target.with_name(f"{REGISTRY}.new")
    fresh.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    fresh.replace(target.with_name(REGISTRY))
    return Budget(eps, num_heads, digest)


def registered(folder: Path) -> dict[str, float]:
    """sha256 of every checkpoint that the folder's registry knows -> eps in [-1, 1]. Raises InvalidInput."""
    path = folder / REGISTRY
    if not path.is_file():
        return {}
    try:
        return {str(digest): float(levels) / GREY_LEVELS for digest, levels in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} is no table of budgets.", "Delete it and convert the published files again."
        ) from error


def load(path: Path, eps: float | None = None) -> Defender:
    """The folded defender of a converted or a published checkpoint, ready to run.

    Raises InvalidInput for other files, and where what the file is taken for (`eps` in [-1, 1], if given), what it
    says itself and what the registry beside it says are not one budget.
    """
    defender, source = _loaded(path)
    registry = registered(path.parent)
    own = sha256_of(path) if registry else ""
    if registry and path.suffix == ".safetensors" and source != TRAINED and own not in registry:
        raise InvalidInput(
            f"{REGISTRY} does not know {path.name}: it was changed, or converted elsewhere.",
            "Convert the published file again, into this folder.",
        )
    for digest in {source, own} & registry.keys():
        _agree(path.name, REGISTRY, registry[digest], defender.eps)
    if eps is not None:
        _agree(path.name, "the strength it is asked for", eps, defender.eps)
    return defender


def _agree(name: str, who: str, wanted: float, found: float) -> None:
    """Raise InvalidInput unless the two budgets, in [-1, 1], are one."""
    if not abs(wanted - found) <= 1e-6:
        raise InvalidInput(
            f"{name} was made for {found * GREY_LEVELS:g} grey levels, and {who} says {wanted * GREY_LEVELS:g}.",
            "Give the file its own name again, or convert the published file anew.",
        )


def _loaded(path: Path) -> tuple[Defender, str]:
    """The defender, and the sha256 of the published file behind it."""
    if path.suffix != ".safetensors":
        weights = _read(path)
        return _made(weights, _check(weights, PUBLISHED_HEADS), budget_of_name(path.name)), sha256_of(path)
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"{path.name} cannot be read as safetensors.", REMEDY) from error
    try:
        heads, eps = int(told["num_heads"]), _positive(path.name, float(told["eps"]))
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{path.name} does not say its budget.", "Convert the published file again.") from error
    return _made(weights, _check(weights, heads), eps), told.get("source", "")


def _made(weights: dict[str, Tensor], shape: Shape, eps: float) -> Defender:
    defender = Defender(shape, eps, folded=True)
    defender.load_state_dict({name: tensor.float() for name, tensor in fold(weights).items()})
    return defender.eval()


def save(defender: Defender, target: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a folded defender with its budget and heads, as `load` reads it."""
    told = {
        "eps": repr(defender.eps),
        "num_heads": str(defender.shape.num_heads),
        "source": TRAINED,
        "engine": "rid",
    }
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in fold(defender.state_dict()).items()}
    save_file(weights, target, metadata=told)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InvalidInput(f"{path.name} holds something other than weights, or is damaged.", REMEDY) from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise InvalidInput(f"{path.name} is no plain table of weights.", REMEDY)
    return weights


def _check(weights: dict[str, Tensor], num_heads: int) -> Shape:
    """The sizes, once every key is there, none is too many, and all shapes fit."""
    try:
        shape = shape_of(weights, num_heads)
    except (ValueError, LookupError) as error:
        raise InvalidInput(f"These are not the weights of a defender ({error}).", REMEDY) from error
    with torch.device("meta"):
        wanted = Defender(shape, 1.0, folded="t_embedder.mlp.0.weight" not in weights).state_dict()
    missing, further = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape)
    for names, what in ((missing, "lacks"), (further, "has besides"), (wrong, "has in another shape")):
        if names:
            raise InvalidInput(f"The checkpoint {what} {len(names)} of the weights, first {names[0]!r}.", REMEDY)
    unsound = [name for name in wanted if not torch.isfinite(weights[name]).all()]
    if unsound:
        raise InvalidInput(f"Not all of the checkpoint's {unsound[0]!r} are numbers.", REMEDY)
    return shape


def source_of(path: Path) -> str:
    """The hash of the published file that a converted one says it was made from; nothing where it does not."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("source", ""))
    except (SafetensorError, OSError):
        return ""


def sha256_of(path: Path) -> str:
    """The hash of a file, as the registry writes it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
