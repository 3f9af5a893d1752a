"""Documents and conversation to token ids."""

from app.prompt.prompt import Prompt, PromptBuilder, Span, TokenizedDocument, Turn

__all__ = ["Prompt", "PromptBuilder", "Span", "TokenizedDocument", "Turn"]
