"""What a run will cost, from sizes alone: floating-point operations, bytes, and the memory plan that fits.

Knows no torch; the speed of a device comes from stored timings, else from a cautious guess.
"""

from __future__ import annotations

from engines.prolificdreamer.params import ProlificDreamerParams
from engines.prolificdreamer.presets import METHODS, MODELS

SPEED = {"cpu": 0.025, "cuda": 40.0}  # TFLOP/s before the first timing of this device
SLACK = 0.4 * 2**30  # bytes: runtime, allocator, pictures
PLANS = ("fast", "thrifty")
THRIFTY = 4  # part of the rays at a time under the second plan
DEVICE_SHARE = 0.92  # of a device's memory that one run may plan with
SAMPLE_FLOP = 9_000  # of one evaluated sample and level, forward and back: memory traffic counted as arithmetic
CULLED = 0.35  # share of the samples left by an occupancy grid
EXPORT_TFLOP = 0.25  # unwrapping, baking, turntables at the pocket sizes
TOY_TFLOP = 0.1


def work(params: ProlificDreamerParams) -> float:
    """TFLOP of the whole run."""
    if params.task == "toy":
        return TOY_TFLOP
    return sum(_of_method(params, method) for method in params.methods)


def _of_method(params: ProlificDreamerParams, method: str) -> float:
    about, model = METHODS[method], MODELS[params.model]
    unet = model.unet_flop
    phi = (1 + 3 * params.phi_steps * params.phi_repeats / params.phi_every) if about.algorithm == "vsd" else 0
    predictions = (2 + 2 * params.perp_neg) + phi
    n = params.particles
    if about.algorithm == "ancestral":
        return 100 * n * unet
    if params.task == "playground":
        return params.playground_iterations * n * predictions * unet
    looked_at = params.views * (predictions * unet + 3 * model.encoder_flop)
    total = params.iterations * n * (looked_at + params.views * _render(params))
    for stage, steps in (("geometry", params.geometry_iterations), ("texture", params.texture_iterations)):
        if stage in params.stages:
            without_phi = params.views * (2 * unet + 3 * model.encoder_flop)
            total += n * steps * (looked_at if stage == "texture" else without_phi)
    films = params.frames / 48 * (params.picture_size / 128) ** 2 if "video" in params.formats else 0
    return total + n * EXPORT_TFLOP * (0.5 + films)


def _render(params: ProlificDreamerParams) -> float:
    """TFLOP of one picture, forward and back: the mean of early and late size."""
    early = params.render_size_early or params.render_size
    pixels = (early**2 + params.render_size**2) / 2
    samples = (params.samples + params.importance) * (CULLED if params.occupancy else 1)
    return pixels * samples * params.levels * SAMPLE_FLOP / 1e12


def seconds(params: ProlificDreamerParams, kind: str, speed: float | None) -> float:
    """How long the run takes on a device."""
    return work(params) / (speed or SPEED.get(kind, SPEED["cpu"]))


def memory(params: ProlificDreamerParams, plan: str, kind: str) -> int:
    """Peak bytes of the run under a memory plan; renders add nothing that grows with their size."""
    if params.task == "toy":
        return int(SLACK)
    model = MODELS[params.model]
    size = 2 if kind == "cuda" and model.teacher.dtype == "float16" else 4
    teacher = model.parameters * size + model.text_parameters * 4
    phi = 0.0
    if any(METHODS[method].algorithm == "vsd" for method in params.methods):
        copies = {"copy": 16 * model.parameters, "lora": 40e6, "small": 16 * min(model.parameters, 90e6)}
        phi = copies.get(params.estimator, model.parameters * size + 40e6)
    batch = params.particles if params.task == "playground" else params.views
    seen = batch * (model.encoder_bytes + 3e-3 * model.parameters * size)
    if params.task == "playground":
        return int(teacher + phi + seen + SLACK)
    rays = params.chunk if plan == "fast" else max(64, params.chunk // THRIFTY)
    chunk = rays * (params.samples + params.importance) * (params.levels * params.features * 4 * 10 + 200)
    rows = params.levels * min(2**params.log2_table, (params.finest_resolution + 1) ** 3)
    fields = 16 * rows * params.features * params.particles
    grid = (params.mesh_grid + 1) ** 3 * 350  # tetrahedra while a surface is extracted
    return int(teacher + phi + seen + chunk + fields + grid + SLACK)


def fitting_plan(params: ProlificDreamerParams, budget: float, kind: str) -> str | None:
    """The fastest plan whose peak stays within `budget` bytes, or None."""
    return next((plan for plan in PLANS if memory(params, plan, kind) <= budget), None)
