"""What a supported checkpoint looks like: its block linears, its tensor names, its configuration. Imports no torch.

Supported are the dense decoders whose block is `self_attn.{q,k,v,o}_proj` + `mlp.{gate,up,down}_proj`: Qwen2,
Qwen3, Llama and Mistral. Everything else is refused by name, because a prunable module that we overlooked would
silently stay dense.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

MODEL_CLASSES: Final[Mapping[str, str]] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""`model_type` of a supported model -> its class in transformers and in vLLM."""
SUPPORTED: Final = tuple(MODEL_CLASSES)

ATTENTION: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP: Final = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LINEARS: Final = ATTENTION + MLP
"""Every `nn.Linear` of a block, in module order: what 'prunable' means throughout."""

PARTS: Final[Mapping[str, tuple[str, ...]]] = {"attention": ATTENTION, "mlp": MLP}

INPUT_OF: Final[Mapping[str, str]] = {
    "self_attn.q_proj": "self_attn.q_proj",
    "self_attn.k_proj": "self_attn.q_proj",
    "self_attn.v_proj": "self_attn.q_proj",
    "self_attn.o_proj": "self_attn.o_proj",
    "mlp.gate_proj": "mlp.gate_proj",
    "mlp.up_proj": "mlp.gate_proj",
    "mlp.down_proj": "mlp.down_proj",
}
"""Linear -> the first linear with the same input, under which the input's statistics are gathered."""

EMBEDDING: Final = "model.embed_tokens.weight"
FINAL_NORM: Final = "model.norm.weight"
HEAD: Final = "lm_head.weight"

_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.+)$")
_NORMS: Final = ("input_layernorm.weight", "post_attention_layernorm.weight")
_QK_NORMS: Final = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
_ROTARY_BUFFER: Final = "self_attn.rotary_emb.inv_freq"  # old Llama files carry it; transformers recomputes it

_SIZES: Final = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)

_DEFAULT_WINDOW: Final = 4096  # of every supported model with windows whose configuration does not say

# These do not change what the weights compute.
_SILENT_CONFIG_KEYS: Final = frozenset({"transformers_version", "use_cache", "auto_map"})


def layer_prefix(index: int) -> str:
    return f"model.layers.{index}."


def split_layer_name(name: str) -> tuple[int, str] | None:
    """`model.layers.3.mlp.up_proj.weight` -> `(3, "mlp.up_proj.weight")`; None for a tensor outside the blocks."""
    match = _LAYER.match(name)
    return (int(match[1]), match[2]) if match else None


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a model that is not supported, naming the property that rules it out."""
    kind = config.get("model_type")
    experts = next((key for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key)), None)
    if experts is not None:
        raise ValueError(
            f"{where}: {experts}={config[experts]} makes this a mixture-of-experts model, whose experts are "
            f"not pruned here; use a dense model of type {', '.join(SUPPORTED)}."
        )
    if kind not in SUPPORTED:
        raise ValueError(f"{where}: model_type {kind!r} is not supported; supported are {', '.join(SUPPORTED)}.")
    if config.get("quantization_config"):
        raise ValueError(f"{where}: the checkpoint is quantised; prune the unquantised checkpoint instead.")
    for key in _SIZES:
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise ValueError(f"{where}: config.json has no positive integer {key!r}; is the folder complete?")


def check_names(names: Iterable[str], config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError unless the tensors are exactly those of the configured architecture."""
    qk_norm = config["model_type"] == "qwen3"
    required = {f"{linear}.weight" for linear in LINEARS} | set(_NORMS) | (set(_QK_NORMS) if qk_norm else set())
    required |= {f"{linear}.bias" for linear in _with_bias(config)}
    allowed = required | {f"{linear}.bias" for linear in LINEARS} | {_ROTARY_BUFFER}
    tied = bool(config.get("tie_word_embeddings", False))
    found = set(names)
    expected = {EMBEDDING, FINAL_NORM} | (set() if tied else {HEAD})
    expected |= {layer_prefix(i) + tail for i in range(config["num_hidden_layers"]) for tail in required}
    missing = sorted(expected - found)
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} tensors are missing, first {missing[0]!r}. "
            f"A {config['model_type']} decoder with this config.json has them: the download is incomplete, or "
            "config.json belongs to another model; download both again."
        )
    for name in sorted(found - expected):
        layer = split_layer_name(name)
        known = name == HEAD if layer is None else layer[1] in allowed and layer[0] < config["num_hidden_layers"]
        if not known:
            raise ValueError(
                f"{where}: tensor {name!r} is not part of a {config['model_type']} decoder; "
                "adapters and custom modules are not supported: merge them first."
            )


def _with_bias(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The linears of a block that have a bias, as transformers builds them: Qwen2's by its architecture, Qwen3's and
    Llama's by their configuration.
    """
    kind = config["model_type"]
    if kind == "qwen2":
        return ATTENTION[:3]
    attention = ATTENTION if kind in ("llama", "qwen3") and config.get("attention_bias") else ()
    return attention + (MLP if kind == "llama" and config.get("mlp_bias") else ())


def expected_shape(name: str, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape that the configuration implies for an embedding, head or linear weight; None for other tensors."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    if name in (EMBEDDING, HEAD):
        return config["vocab_size"], width
    layer = split_layer_name(name)
    if layer is None or not layer[1].endswith("_proj.weight"):
        return None
    head = _head_width(config)
    queries, keys = config["num_attention_heads"] * head, _key_heads(config) * head
    shapes = {"q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries)}
    shapes |= {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
    return shapes[layer[1].split(".")[-2].removesuffix("_proj")]


def _head_width(config: Mapping[str, Any]) -> int:
    """Qwen3's configuration class defaults to 128, the others to an equal share of the width."""
    share: int = config["hidden_size"] // config["num_attention_heads"]
    return config.get("head_dim") or (128 if config["model_type"] == "qwen3" else share)


def _key_heads(config: Mapping[str, Any]) -> int:
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def computation(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a supported model computes besides its tensors, the number of its blocks and the tie of its head.

    Two configurations that say the same in the words of different versions of transformers, or by its defaults, are
    equal here. A kind of attention that all blocks share stands for itself, otherwise it is listed block by block.
    """
    mistral = config["model_type"] == "mistral" and config.get("sliding_window", _DEFAULT_WINDOW) is not None
    kinds = _layer_types(config) or (["sliding_attention"] if mistral else ["full_attention"])
    slides = "sliding_attention" in kinds
    rope = computing_config(config).get("rope_parameters", {})
    return {
        "model_type": config["model_type"],
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": _key_heads(config),
        "head_dim": _head_width(config),
        "hidden_act": config.get("hidden_act") or "silu",
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope},
        "max_position_embeddings": config["max_position_embeddings"],
        "layer_types": kinds if len(set(kinds)) > 1 else kinds[0],
        "sliding_window": config.get("sliding_window", _DEFAULT_WINDOW) if slides else None,
    }


def computing_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of config.json that change the computation, in one spelling for all versions of transformers."""
    kept = {
        key: value
        for key, value in config.items()
        if value is not None and not key.startswith("_") and key not in _SILENT_CONFIG_KEYS
    }
    if "torch_dtype" in kept:
        kept.setdefault("dtype", kept["torch_dtype"])
        del kept["torch_dtype"]
    theta, scaling = kept.pop("rope_theta", None), kept.pop("rope_scaling", None)
    if "rope_parameters" not in kept and (theta is not None or scaling is not None):
        parameters = {
            "rope_type": "default",
            **({} if theta is None else {"rope_theta": theta}),
            **(scaling or {}),
        }
        parameters["rope_type"] = parameters.pop("type", parameters["rope_type"])
        kept["rope_parameters"] = parameters
    return kept


def config_after_removal(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """config.json of the model that keeps only the blocks `kept` (ascending, 0-based, of the original).

    `layer_types` is trimmed to the kept blocks (newer Qwen2 and Qwen3 configurations validate its length). Where
    `max_window_layers` implied it, it is written out, since the position of a block no longer implies its window.
    """
    result = dict(config)
    if list(kept) == list(range(config["num_hidden_layers"])):
        return result
    result["num_hidden_layers"] = len(kept)
    types = _layer_types(config)
    if types is not None:
        result["layer_types"] = [types[i] for i in kept]
    window_start = config.get("max_window_layers")
    if isinstance(window_start, int):
        result["max_window_layers"] = sum(i < window_start for i in kept)
    return result


def config_of_length(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """config.json of every model that keeps `layers` of the blocks; only `max_window_layers`, which has no effect
    without windows, may differ. It names the model's class.

    Raises ValueError for a model whose blocks differ in their attention windows: there it depends on which are kept.
    """
    kinds = set(_layer_types(config) or ())
    if layers < config["num_hidden_layers"] and len(kinds) > 1:
        raise ValueError(
            f"the blocks of this model differ ({', '.join(sorted(kinds))}), so an engine for {layers} of "
            f"{config['num_hidden_layers']} blocks would depend on which are kept; remove no blocks from it"
        )
    return config_after_removal(naming_class(config), range(layers))


def naming_class(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the model's class, which transformers can do without and vLLM cannot."""
    named = {"architectures": [MODEL_CLASSES[config["model_type"]]]} if not config.get("architectures") else {}
    return {**config, **named}


def _layer_types(config: Mapping[str, Any]) -> list[str] | None:
    """The kind of attention of each block, if the configuration states or implies it."""
    types: list[str] | None = config.get("layer_types")
    if types is None and config.get("use_sliding_window") and config.get("sliding_window") is not None:
        total, start = config["num_hidden_layers"], config.get("max_window_layers")
        full = total if start is None else start
        types = ["sliding_attention" if i >= full else "full_attention" for i in range(total)]
    return types
