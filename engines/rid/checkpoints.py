"""Published checkpoints of the defender, made safe to use: read without running anything, and tied to their budget.

A published file holds weights only. Its budget is in its name, and the wrong one would silently double the noise; so
a file is converted once to safetensors, whose header then says budget, heads and the hash of the file it came from.
Dead weights are dropped on the way. Nothing pickled is ever executed.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engines.rid.defender import Defender, Shape, fold, shape_of
from studio.errors import InvalidInput

PUBLISHED_HEADS = 8
PUBLISHED_NAME = re.compile(r"eps-?(\d+)_255")
REMEDY = "Download the file again, or choose another one."


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
    return int(found[1]) / 255


def convert(source: Path, target: Path, eps: float | None = None, num_heads: int = PUBLISHED_HEADS) -> Budget:
    """Write a published checkpoint as folded safetensors. Raises InvalidInput for anything that is not one.

    `eps` in [-1, 1] overrides the budget in the name.
    """
    budget = Budget(budget_of_name(source.name) if eps is None else eps, num_heads, _sha256(source))
    weights = _read(source)
    _check(weights, num_heads)
    told = {"eps": repr(budget.eps), "num_heads": str(num_heads), "source": budget.source, "engine": "rid"}
    save_file({name: tensor.contiguous() for name, tensor in fold(weights).items()}, target, metadata=told)
    return budget


def load(path: Path) -> Defender:
    """The folded defender of a converted or a published checkpoint, ready to run. Raises InvalidInput."""
    if path.suffix != ".safetensors":
        weights = _read(path)
        return _made(weights, _check(weights, PUBLISHED_HEADS), budget_of_name(path.name))
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"{path.name} cannot be read as safetensors.", REMEDY) from error
    if not {"eps", "num_heads"} <= told.keys():
        raise InvalidInput(f"{path.name} does not say its budget.", "Convert the published file again.")
    return _made(weights, _check(weights, int(told["num_heads"])), float(told["eps"]))


def _made(weights: dict[str, Tensor], shape: Shape, eps: float) -> Defender:
    defender = Defender(shape, eps, folded=True)
    defender.load_state_dict({name: tensor.float() for name, tensor in fold(weights).items()})
    return defender.eval()


def save(defender: Defender, target: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a folded defender with its budget and heads, as `load` reads it."""
    told = {
        "eps": repr(defender.eps),
        "num_heads": str(defender.shape.num_heads),
        "source": "trained",
        "engine": "rid",
    }
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in fold(defender.state_dict()).items()}
    save_file(weights, target, metadata=told)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InvalidInput(f"{path.name} holds something other than weights, or is damaged.", REMEDY) from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise InvalidInput(f"{path.name} is no plain table of weights.", REMEDY)
    return weights


def _check(weights: dict[str, Tensor], num_heads: int) -> Shape:
    """The sizes, once every key is there, none is too many, and all shapes fit."""
    try:
        shape = shape_of(weights, num_heads)
    except ValueError as error:
        raise InvalidInput(f"These are not the weights of a defender ({error}).", REMEDY) from error
    with torch.device("meta"):
        wanted = Defender(shape, 1.0, folded="t_embedder.mlp.0.weight" not in weights).state_dict()
    missing, further = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape)
    for names, what in ((missing, "lacks"), (further, "has besides"), (wrong, "has in another shape")):
        if names:
            raise InvalidInput(f"The checkpoint {what} {len(names)} of the weights, first {names[0]!r}.", REMEDY)
    return shape


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
