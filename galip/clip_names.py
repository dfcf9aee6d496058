"""The names that tensors of CLIP's towers have in files of OpenAI, open_clip and transformers.

Ours are OpenAI's. transformers keeps queries, keys and values apart, and its projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from galip_runtime.errors import FileRefused
from torch import Tensor

from galip.tensors import check_dtypes

__all__ = ["has_clip_names", "with_clip_names"]

MOST_SHARED = 64 * 2**20
"""Bytes of tensors that may share memory: joining a billion views of one would fill the memory."""

_NOT_IN_TOWERS = re.compile(
    r"(.*\.)?(logit_scale|logit_bias|input_resolution|context_length|vocab_size|attn_mask|position_ids)"
)
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that distributed training and torch.compile put before every name."""

_RENAMED = [
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),  # transformers' spelling
    (r"^vision_model\.pre_layernorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
]
"""Regular expressions from transformers' tensor names to OpenAI's, applied in order."""

_PROJECTIONS = ("text_projection", "visual.proj")
_QKV = re.compile(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)")


def has_clip_names(names: Iterable[str]) -> bool:
    """Return whether names are those of CLIP's towers, in any of the forms known here."""
    names = {_unwrapped(name) for name in names}
    return any(
        name == "token_embedding.weight" or name.startswith(("text_model.", "vision_model.", "visual."))
        for name in names
    )


def with_clip_names(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the tensors of both towers under OpenAI's names.

    Raises `FileRefused` if no name is of CLIP's towers, if two would get one name, or if a query, key or
    value is missing or misshapen.
    """
    if not has_clip_names(tensors):
        raise FileRefused(
            f"{where} holds no CLIP: none of its tensors is named as OpenAI, open_clip or transformers name "
            f"those of CLIP's towers, but {', '.join(sorted(tensors)[:5]) or 'it has none'!s:.400}"
        )
    stored = {
        _unwrapped(name): tensor
        for name, tensor in tensors.items()
        if not _NOT_IN_TOWERS.fullmatch(_unwrapped(name))
    }
    if len(stored) < sum(not _NOT_IN_TOWERS.fullmatch(_unwrapped(name)) for name in tensors):
        raise FileRefused(f"{where} names tensors twice, with and without {' or '.join(_WRAPPERS)}")
    if any(name.startswith(("text_model.", "vision_model.")) for name in stored):
        return _from_transformers(stored, where)
    if "text.token_embedding.weight" in stored:  # open_clip's, with the text tower as a module of its own
        return {name.removeprefix("text."): tensor for name, tensor in stored.items()}
    return stored


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _from_transformers(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return tensors with transformers' names under OpenAI's, queries, keys and values joined."""
    check_dtypes(tensors, where)
    _check_shared_memory(tensors.values(), where)
    renamed: dict[str, Tensor] = {}
    joined: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if part := _QKV.fullmatch(name):
            joined.setdefault((part[1], part[3]), {})[part[2]] = tensor
        else:
            ours = _renamed(name)
            renamed[ours] = tensor.t() if ours in _PROJECTIONS and tensor.dim() == 2 else tensor
    for (block, kind), parts in joined.items():
        shapes = {letter: tuple(parts[letter].shape) if letter in parts else None for letter in "qkv"}
        if None in shapes.values() or len(set(shapes.values())) != 1 or shapes["q"] == ():
            raise FileRefused(
                f"{where}: {block}.self_attn has q_proj, k_proj and v_proj of unequal {kind}: {shapes}"
            )
        renamed[f"{_renamed(block + '.')}attn.in_proj_{kind}"] = torch.cat(
            [parts[letter] for letter in "qkv"]
        )
    return renamed


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _check_shared_memory(tensors: Iterable[Tensor], where: str) -> None:
    """Raise `FileRefused` if tensors are far larger than the memory behind them."""
    size, storages = 0, {}
    for tensor in tensors:
        size += tensor.numel() * tensor.element_size()
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    if size > sum(storages.values()) + MOST_SHARED:
        raise FileRefused(f"{where} has tensors that share memory; save them apart from one another")
