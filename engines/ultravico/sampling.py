"""The denoising loop that all families and methods share.

Steps of the family's own scheduler on latents, with whatever positions and attention are installed on the
transformer. All that a step leaves for the next one is in `Moment`, so that a run can go on from it to the same bits.
Knows no prompt, no autoencoder and no file; progress, cancelling and checkpoints are the caller's, through `on_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from engines.ultravico.families import Condition, Family
from engines.ultravico.methods import Rule
from engines.ultravico.presets import ModelPreset
from studio.errors import EngineFailed

# What multistep schedulers keep between steps, beside what `set_timesteps` makes.
KEPT = ("model_outputs", "timestep_list", "lower_order_nums", "last_sample", "this_order", "_step_index")


@dataclass
class Moment:
    """How far a run has come."""

    latents: Tensor  # [B, ...] in the family's layout
    step: int = 0  # steps done
    memory: dict[str, Any] = field(default_factory=dict)  # what the solver wants to see again
    solver: dict[str, Any] = field(default_factory=dict)  # the scheduler's own state
    stream: Tensor | None = None  # state of the generator of schedulers that add noise

    def packed(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {
            "latents": self.latents.cpu(),
            "step": self.step,
            "memory": self.memory,
            "solver": self.solver,
            "stream": self.stream,
        }

    @classmethod
    def unpacked(cls, state: dict[str, Any], device: str) -> Moment:
        """From a checkpoint, on the device."""
        return cls(
            state["latents"].to(device),
            int(state["step"]),
            _moved(state["memory"], device),
            _moved(state["solver"], device),
            state["stream"],
        )


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return [_moved(item, device) for item in value] if isinstance(value, list) else value


def _copied(value: Any) -> Any:
    """Lists are changed in place by the scheduler that owns them."""
    return list(value) if isinstance(value, list) else value


@dataclass
class Level:
    """The noise level of the step that is running, in [0, 1]; read by rules that change with it."""

    value: float = 1.0


def scheduler_like(shared: Any, model: ModelPreset, shift: float | None = None) -> Any:
    """A scheduler of one's own with the settings of a shared one, which is never changed, and the model's solver.

    `shift` replaces the checkpoint's time shift: more of the run is spent at high noise as it grows.
    """
    kind = getattr(diffusers, model.solver) if model.solver else type(shared)
    changes = dict(model.solver_settings)
    if shift is not None:
        changes["flow_shift" if "flow_shift" in shared.config else "shift"] = shift
    return kind.from_config(shared.config, **changes)


OnStep = Callable[[Moment, Tensor], None]  # after a step, with the predicted clean latents


@torch.no_grad()
def denoise(
    family: Family,
    transformer: nn.Module,
    scheduler: Any,  # of one's own, see scheduler_like
    steps: int,
    moment: Moment,
    conditions: Sequence[Condition],
    scale: float,
    generator: torch.Generator,
    on_step: OnStep,
    *,
    rule: Rule | None = None,
    level: Level | None = None,
    during: Callable[[int], AbstractContextManager[Any]] = lambda _step: nullcontext(),  # around a step's passes
) -> Tensor:  # clean latents
    """From noise, or from the moment of a checkpoint, to the latents of a video."""
    level = level or Level()
    device = str(moment.latents.device)
    timesteps = family.timesteps(scheduler, steps, device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    for name, value in moment.solver.items():
        setattr(scheduler, name, value)
    if moment.stream is not None:
        generator.set_state(moment.stream)
    for index in range(moment.step, len(timesteps)):
        level.value = float(timesteps[index]) / 1000
        latents = moment.latents
        frequencies = rule(level.value) if rule is not None and family.table_outside else None
        with during(index):
            prediction = family.velocity(transformer, latents, timesteps[index], conditions, scale, frequencies)
        clean = family.clean(scheduler, index, latents, prediction)
        memory = dict(moment.memory)
        latents = family.step(scheduler, index, prediction, latents, memory, generator)
        kept = {name: _copied(getattr(scheduler, name)) for name in KEPT if hasattr(scheduler, name)}
        moment = Moment(latents, index + 1, memory, kept, generator.get_state())
        on_step(moment, clean)
    if not torch.isfinite(moment.latents).all():  # it would decode to black without a word
        raise EngineFailed("The sampling left the range of numbers.", "Lower the guidance or weaken the decay.")
    return moment.latents
