"""Folding into Hugging Face form: the multipliers go into the weights, and what is left is a plain
Llama, or Idefics3 with images, that other software serves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig


def fold(model: Multimodal) -> dict[str, Tensor]:
    """State dict of the equal `LlamaForCausalLM`, or `Idefics3ForConditionalGeneration` if the model sees.

    Exact up to float rounding: branch factors go into output projections, the embedding factor into the
    embedding, the logit factor into the final norm's gain.
    """
    state = _fold_decoder(model)
    if model.vision is None:
        return state
    body = {k.replace("model.", "model.text_model.", 1): v for k, v in state.items() if k.startswith("model.")}
    head = {k: v for k, v in state.items() if not k.startswith("model.")}
    return body | head | _fold_vision(model)


def _fold_decoder(model: Multimodal) -> dict[str, Tensor]:
    config, decoder = model.config, model.decoder
    q_width, kv_width = config.heads * config.head_dim, config.n_kv_heads * config.head_dim
    tied = decoder.head is None
    gain = decoder.norm * decoder.output_multiplier
    state = {
        "model.embed_tokens.weight": decoder.embedding * config.embed_multiplier,
        "model.norm.weight": gain / config.embed_multiplier if tied else gain,
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"] if decoder.head is None else decoder.head
    branch = config.base_depth / config.depth
    weights = dict(decoder.named_parameters())
    for layer in range(config.depth):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        q, k, v = torch.split(weights[ours + "qkv"], [q_width, kv_width, kv_width])
        gate, up = weights[ours + "gate_up"].chunk(2)
        state |= {
            theirs + "input_layernorm.weight": weights[ours + "attention_norm"],
            theirs + "self_attn.q_proj.weight": q,
            theirs + "self_attn.k_proj.weight": k,
            theirs + "self_attn.v_proj.weight": v,
            theirs + "self_attn.o_proj.weight": weights[ours + "attention_out"] * branch,
            theirs + "post_attention_layernorm.weight": weights[ours + "mlp_norm"],
            theirs + "mlp.gate_proj.weight": gate,
            theirs + "mlp.up_proj.weight": up,
            theirs + "mlp.down_proj.weight": weights[ours + "down"] * branch,
        }
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _fold_vision(model: Multimodal) -> dict[str, Tensor]:
    vision = model.config.vision
    if vision is None or model.vision is None:
        return {}
    weights = dict(model.vision.named_parameters())
    root = "model.vision_model."
    state = {
        root + "embeddings.patch_embedding.weight": weights["patch"].view(-1, 3, vision.patch, vision.patch),
        root + "embeddings.patch_embedding.bias": weights["patch_bias"],
        root + "embeddings.position_embedding.weight": weights["positions"],
        root + "post_layernorm.weight": weights["norm"],
        root + "post_layernorm.bias": weights["norm_bias"],
        "model.connector.modality_projection.proj.weight": weights["connector"],
    }
    branch = vision.base_depth / vision.depth
    for layer in range(vision.depth):
        ours, theirs = f"blocks.{layer}.", f"{root}encoder.layers.{layer}."
        pairs = [
            ("layer_norm1", "attention_norm", "attention_norm_bias", 1.0),
            ("layer_norm2", "mlp_norm", "mlp_norm_bias", 1.0),
            ("self_attn.out_proj", "attention_out", "attention_out_bias", branch),
            ("mlp.fc1", "up", "up_bias", 1.0),
            ("mlp.fc2", "down", "down_bias", branch),
        ]
        for their, weight, bias, factor in pairs:
            state[f"{theirs}{their}.weight"] = weights[ours + weight] * factor
            state[f"{theirs}{their}.bias"] = weights[ours + bias] * factor
        for part in ("weight", "bias"):
            fused = weights[ours + ("qkv" if part == "weight" else "qkv_bias")]
            for name, tensor in zip("qkv", fused.chunk(3), strict=True):
                state[f"{theirs}self_attn.{name}_proj.{part}"] = tensor
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """config.json of the folded model: `LlamaConfig` fields, wrapped in Idefics3's when the model sees."""
    text: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    vision = config.vision
    if vision is None:
        return text
    return {
        "model_type": "idefics3",
        "architectures": ["Idefics3ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp_ratio * vision.width,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.heads,
            "image_size": vision.tile,
            "patch_size": vision.patch,
            "layer_norm_eps": vision.norm_eps,
            "hidden_act": "gelu_pytorch_tanh",
        },
        "scale_factor": vision.shuffle,
        "image_token_id": config.image_token,
        "tie_word_embeddings": config.tie_embeddings,
    }


def normalized_pixels(tiles: Tensor) -> Tensor:
    """uint8 tiles (N, S, S, 3) as the pixel values (N, 3, S, S) that transformers models read, in -1…1."""
    return (tiles.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5) / 0.5
