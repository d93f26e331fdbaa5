"""The adapters of ProlificDreamer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.prolificdreamer import cameras, hashgrid, schedules, tetrahedra, volume, vsd
from tests.kernels.adapters import Adapter, Arrays, returns, tensors


def without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def convert_prediction(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"pred": vsd.convert_prediction(**without(tensors(inputs), "t"), **kwargs)}


def timestep_bounds(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"bounds": np.array([schedules.timestep_bounds(int(step), **kwargs) for step in inputs["step"]])}


def scheduled_value(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    epochs = np.broadcast_to(inputs.get("epoch", kwargs.get("epoch", 0)), inputs["step"].shape)
    pairs = zip(inputs["step"], epochs, strict=True)
    values = [schedules.scheduled_value(kwargs["spec"], int(step), float(epoch)) for step, epoch in pairs]
    return {"value": np.array(values)}


def vsd_gradient(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    names = ("x_t", "eps_uncond", "eps_cond", "phi_pred", "alpha_bar")
    grad = vsd.vsd_gradient(**{name: given[name] for name in names}, **kwargs)
    latents = given.get("x0", given["x_t"]).clone().requires_grad_()
    vsd.gradient_loss(latents, grad).backward()
    return {"grad": grad, "dloss_dlatents": latents.grad}


def gradient_loss(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    latents = given["latents"].requires_grad_()
    loss = vsd.gradient_loss(latents, given["grad"])
    loss.backward()
    return {"loss": loss.detach(), "dloss_dlatents": latents.grad}


def score_estimator_loss(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = without(tensors(inputs), "t")
    predicted = given.pop("phi_pred").requires_grad_()
    loss = vsd.score_estimator_loss(predicted, **given, **kwargs)
    loss.backward()
    return {
        "x_t": vsd.add_noise(**given),
        "target": vsd.denoising_target(**given, **kwargs),
        "loss": loss.detach(),
        "dloss_dpred": predicted.grad,
    }


def random_orbit_cameras(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    ranges = without(kwargs, "right_handed")
    orbit = dict(
        zip(("radius", "theta", "phi"), cameras.orbit_from_uniforms(**tensors(inputs), **ranges), strict=True)
    )
    view = cameras.view_direction_index(orbit["theta"], orbit["phi"])
    pose = cameras.orbit_c2w(**orbit, right_handed=kwargs.get("right_handed", False))
    return {"c2w": pose, "view_index": view, **orbit}


def orbit_c2w(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    view = cameras.view_direction_index(given["theta"], given["phi"])
    return {"c2w": cameras.orbit_c2w(**given, **kwargs), "view_index": view}


def ray_box_bounds(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    return dict(zip(("near", "far"), cameras.ray_box_bounds(given["rays_o"], given["rays_d"], **kwargs), strict=True))


def composite(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    found = volume.composite(z=given.pop("z_vals"), **given)
    return dict(zip(("weights", "opacity", "depth", "image"), found, strict=True))


def render_rays(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The analytic field of the case, as its meta data describes it."""
    given = tensors(inputs)
    centre = torch.tensor([0.1, -0.05, 0.2], dtype=torch.float64)

    def field(x: Tensor) -> tuple[Tensor, Tensor]:
        sigma = torch.nn.functional.softplus(10 * (1 - (x - centre.to(x.dtype)).norm(dim=-1) / 0.5))
        return sigma, torch.sigmoid(3 * torch.sin(4 * x))

    numbers = without(kwargs, "perturb", "shading", "field")
    rays = given.pop("rays_o"), given.pop("rays_d")
    return vars(volume.render_rays(field, *rays, **given, **numbers))  # bg, and random numbers where they are given


def layout(kwargs: dict[str, Any]) -> tuple[Tensor, float]:
    """`input_dim` is the encoder's word for `dim`; features and interpolation do not change where rows begin."""
    numbers = without(kwargs, "level_dim", "interpolation", "input_dim")
    if "input_dim" in kwargs:
        numbers["dim"] = kwargs["input_dim"]
    return hashgrid.hash_grid_layout(**numbers)


def hash_grid_layout(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(("offsets", "per_level_scale"), layout(kwargs), strict=True))


def hash_grid_encode(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    x, table = given["x"].requires_grad_(), given["table"].requires_grad_()
    _, growth = layout(kwargs)
    features = hashgrid.hash_grid_encode(
        x,
        table,
        given["offsets"],
        growth,
        kwargs["base_resolution"],
        align_corners=kwargs["align_corners"],
        interpolation=kwargs["interpolation"],
    )
    features.backward(given["grad_output"])
    return {"features": features.detach(), "grad_table": table.grad, "grad_x": x.grad}


def density_blob(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    bias = volume.density_blob(given["x"], **kwargs)
    return {"bias": bias, "density": volume.activated_density(given["raw"], bias)}


def regularizers(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    weights = given["weights"].requires_grad_()
    entropy = volume.alpha_entropy(weights)
    entropy.backward()
    weights, opacity = weights.detach(), given["opacity"]
    return {
        "alpha_entropy": entropy.detach(),
        "d_alpha_entropy_d_weights": given["weights"].grad,
        "opacity_l2": volume.opacity_l2(opacity),
        "orientation": volume.orientation_loss(weights, given["normals"], given["dirs"]),
        "sparsity": volume.sparsity_loss(opacity),
        "opaque": volume.opaque_loss(opacity),
        "z_variance": volume.z_variance_loss(weights, given["z_vals"], opacity),
    }


def marching_tetrahedra(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Gradients are those of sum(verts^2 * [1, 2, 3]), as the case says."""
    given = tensors(inputs)
    pos, sdf = given["pos"].requires_grad_(), given["sdf"].requires_grad_()
    verts, faces = tetrahedra.marching_tetrahedra(pos, sdf, given["tets"])
    if verts.requires_grad:
        (verts.square() * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    gradients = {"d_sdf": sdf.grad, "d_pos": pos.grad}
    zeros = {"d_sdf": torch.zeros_like(sdf), "d_pos": torch.zeros_like(pos)}
    return {
        "verts": verts.detach(),
        "faces": faces,
        **{name: zeros[name] if grad is None else grad for name, grad in gradients.items()},
    }


def mesh_regularizers(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given, found = tensors(inputs), {}
    losses = {"normal_consistency": tetrahedra.normal_consistency, "laplacian": tetrahedra.laplacian_loss}
    for name, loss in losses.items():
        verts = given["verts"].clone().requires_grad_()
        value = loss(verts, given["faces"])
        value.backward()
        found |= {name: value.detach(), f"d_{name}": verts.grad}
    return found


CASES: dict[str, Adapter] = {
    "prolificdreamer.scaled_linear_alphas_cumprod": returns(vsd.scaled_linear_alphas_cumprod, "alphas_cumprod"),
    "prolificdreamer.convert_prediction": convert_prediction,
    "prolificdreamer.timestep_bounds": timestep_bounds,
    "prolificdreamer.scheduled_value": scheduled_value,
    "prolificdreamer.vsd_gradient": vsd_gradient,
    "prolificdreamer.gradient_loss": gradient_loss,
    "prolificdreamer.score_estimator_loss": score_estimator_loss,
    "prolificdreamer.camera_embedding": returns(vsd.camera_embedding, "embedding"),
    "prolificdreamer.random_orbit_cameras": random_orbit_cameras,
    "prolificdreamer.orbit_c2w": orbit_c2w,
    "prolificdreamer.view_direction_index": returns(cameras.view_direction_index, "index"),
    "prolificdreamer.camera_rays": returns(cameras.camera_rays, "rays_o", "rays_d"),
    "prolificdreamer.ray_box_bounds": ray_box_bounds,
    "prolificdreamer.composite": composite,
    "prolificdreamer.sample_pdf": returns(volume.sample_pdf, "samples"),
    "prolificdreamer.render_rays": render_rays,
    "prolificdreamer.hash_grid_encode": hash_grid_encode,
    "prolificdreamer.hash_grid_layout": hash_grid_layout,
    "prolificdreamer.frequency_encode": returns(volume.frequency_encode, "features"),
    "prolificdreamer.density_blob": density_blob,
    "prolificdreamer.regularizers": regularizers,
    "prolificdreamer.marching_tetrahedra": marching_tetrahedra,
    "prolificdreamer.mesh_regularizers": mesh_regularizers,
    "prolificdreamer.shade": returns(volume.shade, "color"),
}
