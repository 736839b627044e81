"""The classes that a data file may name in ``policy_kwargs``, and no others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN

__all__ = ["ACTIVATIONS", "EXTRACTORS", "NAMED_CLASSES", "OPTIMIZERS"]

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {
    "elu": torch.nn.ELU,
    "gelu": torch.nn.GELU,
    "leaky_relu": torch.nn.LeakyReLU,
    "relu": torch.nn.ReLU,
    "silu": torch.nn.SiLU,
    "tanh": torch.nn.Tanh,
}
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "rmsprop_tf_like": RMSpropTFLike,
    "sgd": torch.optim.SGD,
}
EXTRACTORS: dict[str, type[torch.nn.Module]] = {
    "combined": CombinedExtractor,
    "flatten": FlattenExtractor,
    "nature_cnn": NatureCNN,
}
#: By the keyword that takes one.
NAMED_CLASSES: dict[str, Mapping[str, type]] = {
    "activation_fn": ACTIVATIONS,
    "features_extractor_class": EXTRACTORS,
    "optimizer_class": OPTIMIZERS,
}
