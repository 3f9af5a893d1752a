"""A context window beyond the one a model was made for, on request: YaRN.

YaRN stretches the slow rotary frequencies and leaves the fast ones, and sharpens attention a
little. It is a change of the model: every prompt, short ones too, gets other answers, and how good
they are at lengths the model was not trained for is not promised. So it is never on by itself.

Source: YaRN, arXiv:2309.00071, as transformers computes it; asked for by its `rope_parameters`.
"""

from __future__ import annotations

from mom_core.config import EngineConfig
from mom_core.errors import InvalidSetting
from mom_core.model.seam.decoder import HFSeam


def set_context_window(seam: HFSeam, name: str, config: EngineConfig) -> tuple[str, ...]:
    """Makes a model read up to `config.context_tokens`, and says what that means.

    Args:
        seam: the model; its rotary parameters and window may change.
        name: the model's, for sentences.
        config: says the window, and whether positions may be stretched.

    Returns:
        Sentences to show; none where the model answers as it always does.

    Raises:
        InvalidSetting: the window is longer than the model's, and must not or cannot be extended.
    """
    native, context_tokens = seam.context_window_tokens, config.context_tokens
    if context_tokens is None or context_tokens <= native:
        return ()
    wanted = (
        f"A context of {context_tokens:,} tokens was asked for, and {name} was made for {native:,}."
    )
    if config.extend != "yarn":
        raise InvalidSetting(
            f'{wanted} Ask for {native:,} or fewer, or for extend="yarn", which changes its '
            "answers, or use a model with a longer context window."
        )
    found = seam.rope_parameters()
    kind = found.get("rope_type")
    if kind != "default":
        why = (
            "its kinds of layers rotate positions differently"
            if kind is None
            else f"its positions are already scaled ({kind})"
        )
        raise InvalidSetting(
            f"{wanted} It cannot be extended by YaRN: {why}. Ask for {native:,} or fewer, or use "
            "a model with a longer context window."
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
        f"The context window of {name} is extended from {native:,} to {context_tokens:,} tokens by "
        f"YaRN: positions are stretched {factor:.3g} times. Short prompts are answered otherwise "
        "than without it, too, and the model was not made for such lengths.",
    )
