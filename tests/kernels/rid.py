"""The adapters of RID."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image

from engines.rid import adv_sds, attacks, defender, jpeg, portrait, quality
from tests.kernels.adapters import Adapter, Arrays, returns, tensors


def bounded_perturbation(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"delta": defender.bounded_perturbation(tensors(inputs)["raw"], **kwargs)}


def apply_perturbation(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    protected, levels = portrait.apply_perturbation(**tensors(inputs))
    return {"protected": protected, "uint8": levels}


def sincos_pos_embed_2d(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    sizes = {name: int(array) for name, array in inputs.items()} | kwargs
    return {"out": defender.sincos_pos_embed_2d(**sizes)}


def rid_defender(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    weights = {name.removeprefix("sd/"): tensor for name, tensor in given.items() if name.startswith("sd/")}
    return {"delta": defender.rid_defender(given["image"], weights, **kwargs)}


def preprocess_portrait(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    mode = kwargs.get("mode")  # of the raw pixels: four channels are CMYK as well as RGBA
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow takes the mode back in a later version
        image = Image.fromarray(inputs["pixels"], None if mode == "1" else mode)
    rgb, tensor = portrait.preprocess_portrait(image, kwargs["size"])
    return {"rgb": rgb, "tensor": tensor}


def adv_sds_loss(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    latents = given.pop("latents").requires_grad_()
    noisy, loss = adv_sds.adv_sds_loss(latents, **given)
    noisy.retain_grad()
    loss.backward()
    return {"noisy": noisy.detach(), "loss": loss.detach(), "grad_noisy": noisy.grad, "grad_latents": latents.grad}


def rid_total_loss(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return vars(adv_sds.rid_total_loss(**tensors(inputs), **kwargs))


def momentum_pgd_step(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = tensors(inputs)
    out, momentum = attacks.momentum_pgd_step(momentum=given.pop("momentum_in"), **given, **kwargs)
    return {"out": out, "momentum_out": momentum}


def ensemble_average(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"out": attacks.ensemble_average([torch.from_numpy(inputs[name]) for name in sorted(inputs)])}


def jpeg_roundtrip(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"out": portrait.jpeg_roundtrip(**inputs, **kwargs)}


def identity_metrics(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(("ism", "fdfr"), quality.identity_metrics(**inputs), strict=True))


def frechet_distance(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"fid": quality.frechet_distance(**inputs)}


def visibility_metrics(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    names = ("linf_levels", "mean_abs_levels", "psnr")
    return dict(zip(names, quality.visibility_metrics(**inputs), strict=True))


def brisque(inputs: Arrays, kwargs: dict[str, Any]) -> dict[str, Any]:
    features, score = quality.brisque(**inputs)
    first = quality.mscn(inputs["image"][..., :3].astype(np.float64) / 255 @ quality.GREY)[:4]
    return {"features": features, "score": score, "mscn_first_rows": first}


CASES: dict[str, Adapter] = {
    "rid.bounded_perturbation": bounded_perturbation,
    "rid.apply_perturbation": apply_perturbation,
    "rid.sincos_pos_embed_2d": sincos_pos_embed_2d,
    "rid.unpatchify": returns(defender.unpatchify, "image"),
    "rid.rid_defender": rid_defender,
    "rid.preprocess_portrait": preprocess_portrait,
    "rid.adv_sds_loss": adv_sds_loss,
    "rid.rid_total_loss": rid_total_loss,
    "rid.pgd_step": returns(attacks.pgd_step, "out"),
    "rid.momentum_pgd_step": momentum_pgd_step,
    "rid.ensemble_average": ensemble_average,
    "rid.jpeg_roundtrip": jpeg_roundtrip,
    "rid.jpeg_proxy": returns(jpeg.jpeg_proxy, "out"),
    "rid.identity_metrics": identity_metrics,
    "rid.frechet_distance": frechet_distance,
    "rid.visibility_metrics": visibility_metrics,
    "rid.brisque": brisque,
}
