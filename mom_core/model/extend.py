"""Optional: a context window longer than the one a model was made for, by YaRN.

YaRN stretches the slow rotary frequencies, keeps the fast ones, and sharpens attention a little.
It changes the model: every prompt, even a short one, gets different answers, and nothing is
promised about their quality at lengths the model was not trained for. It is never on by default.

Source: YaRN, arXiv:2309.00071, as transformers computes it for its `rope_parameters`.
"""

from __future__ import annotations

from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting
from mom_core.model.seam.decoder import HFSeam


def set_context_window(seam: HFSeam, name: str, config: EngineConfig) -> tuple[str, ...]:
    """Extends a model's context window to `config.context_tokens`, if necessary.

    Args:
        seam: the model, whose rotary parameters and window may change.
        name: name of the model, for messages.
        config: settings: the window in tokens, and whether it may be extended.

    Returns:
        Sentences to show to the user; empty if the model is unchanged.

    Raises:
        InvalidSetting: the window is longer than the model's, and may not or cannot be extended.
    """
    native, context_tokens = seam.context_window_tokens, config.context_tokens
    if context_tokens is None or context_tokens <= native:
        return ()
    wanted = (
        f"A context of {context_tokens:,} tokens was asked for, but {name} was made for {native:,}."
    )
    if config.extend != "yarn":
        raise InvalidSetting(
            f'{wanted} Ask for {native:,} or fewer, set extend="yarn", which changes its answers, '
            "or use a model with a longer context window."
        )
    found = seam.rope_parameters()
    kind = found.get("rope_type")
    if kind != "default":
        why = (
            "its layers do not all rotate positions in the same way"
            if kind is None
            else f"its positions are already scaled ({kind})"
        )
        raise InvalidSetting(
            f"{wanted} YaRN cannot extend it: {why}. Ask for {native:,} or fewer, or use a model "
            "with a longer context window."
        )
    factor = context_tokens / native
    seam.set_rope(
        {
            **found,
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": native,
        },
        context_tokens,
    )
    return (
        f"YaRN extends the context window of {name} from {native:,} to {context_tokens:,} tokens: "
        f"positions are stretched {factor:.3g} times. This also changes the answers to short "
        "prompts, and the model was not made for such lengths.",
    )
