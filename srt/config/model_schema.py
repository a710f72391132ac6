"""The settings of a model, as types: one class for each model. `srt.config.schema` has the rest.

A model's class has the keys that it uses and no others. `MODELS` lists the classes, and everything
that must know all models asks there. No class has a default value: every number is in params.yaml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from srt.config.strict import ConfigError, check_positive


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings that all models have. Sizes count elements."""

    # A key of MODELS. Each model's class allows only its own.
    name: str

    # The coordinates that rays are in. "canonical" are those of the first input camera.
    frame: Literal["canonical", "world"]

    # The Fourier encoding of rays: the number of frequencies, and the exponent of the lowest one.
    position_octaves: int
    position_start_octave: int
    direction_octaves: int
    direction_start_octave: int

    # The CNN of the encoder. Each block doubles the channels of the first convolution.
    conv_blocks: int
    conv_channels: int

    # How convolutions are initialised. "torch" is what the published code does.
    conv_init: Literal["torch", "he"]

    # The transformers of encoder and decoder: channels of a token, heads, channels of a head.
    latent_dim: int
    heads: int
    head_dim: int
    mlp_dim: int
    encoder_layers: int
    decoder_layers: int

    # Rows and columns of the learned embedding of a token's position in its image; null: none.
    pixel_embedding: tuple[int, int] | None

    # The hidden channels of an MLP through which a query passes first; null: there is no such MLP.
    query_hidden: int | None

    # The MLP that turns what a query has collected into a colour.
    decoder_hidden: int
    decoder_hidden_layers: int

    def __post_init__(self) -> None:
        check_positive(self, "position_start_octave", "direction_start_octave")


@dataclass(frozen=True, kw_only=True)
class SrtConfig(ModelConfig):
    """SRT: a ray is one query, whose colour is in [0, 1] (SRT, section 3)."""

    name: Literal["srt"]


@dataclass(frozen=True, kw_only=True)
class IsrtConfig(ModelConfig):
    """ISRT: SRT without the sigmoid that keeps colours in [0, 1] (OSRT, appendix A.4)."""

    name: Literal["isrt"]


@dataclass(frozen=True, kw_only=True)
class VsrtConfig(ModelConfig):
    """VSRT: the points on a ray are queries, and volume rendering combines them."""

    name: Literal["vsrt"]

    # Samples on a ray. Fine samples have their own net, or share that of the coarse ones.
    coarse_samples: int
    fine_samples: int
    separate_fine_net: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coarse_samples < 2:
            raise ConfigError(f"coarse_samples {self.coarse_samples} is less than 2")


# The class of each model's settings, by the name in params.yaml.
MODELS: dict[str, type[ModelConfig]] = {
    "srt": SrtConfig,
    "isrt": IsrtConfig,
    "vsrt": VsrtConfig,
}


def keys_of_models(names: Iterable[str]) -> list[str]:
    """Return the keys that any of these models has, besides its name, each of them once."""
    keys = [field.name for name in names for field in dataclasses.fields(MODELS[name])]
    return [key for key in dict.fromkeys(keys) if key != "name"]


def drop_keys_of_others(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that this model does not have, but another one has.

    Profiles change all models together, and weights and states of version 0.2.0 have the keys of
    all models. A key that no model has stays, so that reading the settings refuses it.
    """
    foreign = set(keys_of_models(MODELS)) - set(keys_of_models([name]))
    return {key: value for key, value in values.items() if key not in foreign}
