"""From the parameters of a run to the settings of its parts: the only place that knows both."""

from __future__ import annotations

from typing import Literal

from engines.prolificdreamer.distillation import Guidance, Learning
from engines.prolificdreamer.estimate import PLANS, THRIFTY
from engines.prolificdreamer.field import FieldConfig
from engines.prolificdreamer.geometry import GeometryConfig
from engines.prolificdreamer.params import ProlificDreamerParams, knots
from engines.prolificdreamer.particles import NerfConfig
from engines.prolificdreamer.playground import PlaygroundConfig
from engines.prolificdreamer.presets import METHODS, MODELS
from engines.prolificdreamer.prompts import Wording
from engines.prolificdreamer.renderer import RenderConfig
from engines.prolificdreamer.schedules import TimeRange
from engines.prolificdreamer.texture import TextureConfig
from engines.prolificdreamer.viewpoints import CameraRange

Part = Literal["nerf", "geometry", "texture", "playground"]


def wording_of(params: ProlificDreamerParams) -> Wording:
    """How prompts are put together."""
    return Wording(
        prompt=params.prompt.strip(),
        negative=params.negative_prompt.strip(),
        scene=params.scene,
        sides=params.view_words,
        words=MODELS[params.model].words,
        suppress_face=params.suppress_face,
    )


def steps_of(params: ProlificDreamerParams, part: Part) -> int:
    """Steps of a stage; every particle gets its own share of those of the field."""
    return {
        "nerf": params.iterations * params.particles,
        "geometry": params.geometry_iterations,
        "texture": params.texture_iterations,
        "playground": params.playground_iterations,
    }[part]


def stages_of(params: ProlificDreamerParams) -> list[tuple[Part, int]]:
    """Stage and particle, in order: the field of all particles at once, then each particle's surface and colours."""
    later: list[tuple[Part, int]] = [
        (stage, particle)
        for particle in range(params.particles)
        for stage in ("geometry", "texture")
        if stage in params.stages
    ]
    return [("nerf", 0), *later]


def times_of(params: ProlificDreamerParams, part: Part) -> TimeRange:
    """The range of timesteps of a stage, with a counter of its own."""
    steps = steps_of(params, part)
    if part in ("geometry", "texture"):  # published: the late range throughout
        late = params.t_max_late if params.anneal else params.t_max
        return TimeRange(params.t_min, late, late, -1)
    if not params.anneal:
        return TimeRange(params.t_min, params.t_max, params.t_max, -1)
    anneal = 3 * steps // 5 if params.anneal_step is None else params.anneal_step * _each(params, part)
    return TimeRange(
        params.t_min,
        params.t_max,
        params.t_max_late,
        anneal,
        params.time_mode,
        ramp_end=max(steps, anneal + 1) if params.time_mode == "ramp" else None,
        total_steps=steps if params.time_mode == "sqrt" else None,
    )


def _each(params: ProlificDreamerParams, part: Part) -> int:
    """Steps are said for one particle, and each gets as many."""
    return params.particles if part == "nerf" else 1


def guidance_of(params: ProlificDreamerParams, method: str, part: Part) -> Guidance:
    """How a method moves particles in a stage; surfaces are always refined by score distillation, as published."""
    about = METHODS[method]
    scale = params.guidance if about.guidance is None else about.guidance
    return Guidance(
        algorithm="vsd" if about.algorithm == "vsd" and part != "geometry" else "sds",
        scale=params.geometry_guidance if part == "geometry" else scale,
        weighting=params.weighting,
        clip=params.clip,
        perp_neg=params.perp_neg,
        times=times_of(params, part),
    )


def learning_of(params: ProlificDreamerParams) -> Learning:
    """How phi is trained."""
    return Learning(
        rate=params.phi_rate,
        warmup=params.phi_warmup * params.phi_steps,
        camera_drop=params.camera_drop,
        target=params.phi_target,
        repeats=params.phi_repeats,
        steps=params.phi_steps,
        every=params.phi_every,
    )


def field_config(params: ProlificDreamerParams) -> FieldConfig:
    """Of every particle."""
    return FieldConfig(
        bound=params.bound,
        levels=params.levels,
        features=params.features,
        base=params.base_resolution,
        finest=params.finest_resolution,
        log2_table=params.log2_table,
        interpolation=params.interpolation,
        hidden=params.hidden,
        start=params.start,
        blob_scale=params.blob_scale,
        blob_radius=params.blob_radius,
        background=params.background,
        backdrop=params.backdrop,
    )


def cameras_of(params: ProlificDreamerParams, part: Part) -> CameraRange:
    """Where training cameras stand."""
    fovy = params.geometry_fovy if part == "geometry" and params.geometry_fovy else params.fovy
    return CameraRange(
        radius=params.radius,
        fovy=fovy,
        theta=params.theta,
        sphere_share=params.sphere_share,
        overhead_share=params.overhead_share,
    )


def render_config(params: ProlificDreamerParams, plan: str) -> RenderConfig:
    """How rays are sampled; a thrifty plan takes fewer at a time."""
    return RenderConfig(
        samples=params.samples,
        importance=params.importance,
        chunk=params.chunk if plan == PLANS[0] else max(64, params.chunk // THRIFTY),
        density_noise=params.density_noise,
    )


def nerf_config(params: ProlificDreamerParams, plan: str) -> NerfConfig:
    """The first stage; steps that are said for one particle are multiplied by their number."""
    n = params.particles
    steps = steps_of(params, "nerf")
    grow = steps // 2 if params.grow_step is None else params.grow_step * n
    names = ("entropy", "opacity", "sparsity", "opaque", "z_variance", "smoothness")
    return NerfConfig(
        steps=steps,
        particles=n,
        views=params.views,
        side=params.render_size,
        side_early=params.render_size_early or params.render_size,
        grow_step=grow,
        rate_grid=params.rate_grid,
        rate_decoder=params.rate_decoder,
        rate_background=params.rate_background,
        decay_share=params.decay_share,
        random_backdrop_step=params.random_background_step * n if params.random_background else -1,
        random_backdrop_share=params.random_background,
        occupancy=params.occupancy,
        replay=params.replay,
        volume=field_config(params),
        render=render_config(params, plan),
        cameras=cameras_of(params, "nerf"),
        **{name: knots(getattr(params, name), n) for name in names},
    )


def geometry_config(params: ProlificDreamerParams) -> GeometryConfig:
    """The second stage."""
    return GeometryConfig(
        steps=steps_of(params, "geometry"),
        views=params.views,
        side=params.render_size,
        supersampling=params.supersampling,
        grid=params.mesh_grid,
        threshold=params.threshold,
        normal_weight=params.normal_weight,
        laplacian_weight=params.laplacian_weight,
        rate=params.rate_geometry,
        cameras=cameras_of(params, "geometry"),
    )


def texture_config(params: ProlificDreamerParams) -> TextureConfig:
    """The third stage."""
    return TextureConfig(
        steps=steps_of(params, "texture"),
        views=params.views,
        side=params.render_size,
        supersampling=params.supersampling,
        rate_grid=params.rate_grid,
        rate_decoder=params.rate_decoder,
        rate_background=params.rate_background,
        random_backdrop_step=0 if params.random_background else -1,
        random_backdrop_share=params.random_background,
        cameras=cameras_of(params, "texture"),
    )


def playground_config(params: ProlificDreamerParams) -> PlaygroundConfig:
    """Pictures as particles."""
    return PlaygroundConfig(
        steps=steps_of(params, "playground"),
        particles=params.particles,
        rate=params.playground_rate,
        start=params.playground_start,
    )
