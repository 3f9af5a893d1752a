"""The next question of a chat: the prompt that would be sent, and what it would cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from app.library.reuse import Found, Reuse
from app.prompt.fitting import fit
from app.prompt.prompt import Prompt, PromptBuilder, Turn
from app.workspace.conversations import Answered, Conversation, Conversations
from app.workspace.documents import DocumentList
from app.workspace.forecasts import Forecast, PromptParts
from app.workspace.model import ModelSlot
from app.workspace.run_view import Asked
from app.workspace.settings import Settings
from app.workspace.token_map import token_map
from mom_core.errors import ContextTooLong, InvalidSetting

if TYPE_CHECKING:
    from mom_core.engine import Engine


class NextQuestion:
    """Makes prompts, and forecasts of them, of what is there now.

    Args:
        model: that will read it.
        document_list: whose chosen documents are in it.
        conversations: whose turns are in it.
        settings: those in force.
        keeping: knows what was read before; None if nothing is kept.
        lock: held while model and settings are looked at.
    """

    def __init__(
        self,
        model: ModelSlot,
        document_list: DocumentList,
        conversations: Conversations,
        settings: Callable[[], Settings],
        reuse: Reuse | None,
        lock: threading.RLock,
    ) -> None:
        self._model = model
        self._documents = document_list
        self._conversations = conversations
        self._settings = settings
        self._reuse = reuse
        self._lock = lock

    def prompt(self, chat: Conversation, asked: Asked) -> tuple[Prompt, str]:
        """What is sent, and a sentence that has to stand beside the answer ("" if none).

        Args:
            chat: of which the turns before the question are told.
            asked: the question and its place.

        Raises:
            InvalidSetting: there is no model.
            ContextTooLong: documents and conversation exceed the model's window.
        """
        with self._lock:
            engine, builder = self._model.engine, self._model.builder
            if engine is None or builder is None:
                raise InvalidSetting(self._model.error)
            documents, settings = self._documents.chosen(), self._settings()
            window, notice = engine.context_window_tokens, ""
            turns = self._turns(builder, chat.answered[: asked.turn])
            question = asked.question
            prompt = builder.build(documents, turns, question, settings.system)
            if len(prompt.token_ids) > window and settings.fits_best_parts:
                others = len(prompt.token_ids) - sum(document.tokens for document in documents)
                room = window - others - settings.max_new_tokens
                fitted = fit(documents, question, room)
                notice = fitted.sentence
                prompt = builder.build(fitted.documents, turns, question, settings.system)
            if len(prompt.token_ids) > window:
                raise ContextTooLong(
                    f"Documents and conversation are {len(prompt.token_ids):,} tokens, and "
                    f"{self._model.name} reads at most {window:,}. Nothing was cut: untick parts, "
                    "remove a document, start a new chat, or use a model with a larger context."
                )
            return prompt, notice

    def known_tokens(
        self, engine: Engine, token_ids: Sequence[int], found: Found | None = None
    ) -> int:
        """Of a prompt's beginning, what is read already, here or in the library.

        Args:
            engine: whose context may hold it.
            token_ids: of the prompt.
            found: what the library has for it; None looks it up if that may be more.
        """
        known = engine.context.common_prefix_tokens(token_ids)
        if found is None and self._reuse is not None and known * 2 <= len(token_ids):
            found = self._reuse.look_up(engine, token_ids)
        match = None if found is None else found.match
        if match is None or not match.entry.is_whole:
            return known
        return max(known, match.common_tokens)

    def forecast(self, chat_id: str) -> Forecast | None:
        """What it would cost; None while that cannot be told. Takes its time."""
        with self._lock:
            engine, builder, settings = self._model.engine, self._model.builder, self._settings()
            if engine is None or builder is None or self._documents.is_preparing:
                return None
            documents, cells = self._documents.chosen(), self._documents.cells()
            turns = self._turns(builder, self._conversations.known(chat_id).answered)
            config = settings.engine_config(self._model.config)
            model_name = self._model.name
        prompt = builder.build(documents, turns, "", settings.system)
        tokens = len(prompt.token_ids)
        in_documents = sum(document.tokens for document in documents)
        window, new_tokens = engine.context_window_tokens, settings.max_new_tokens
        known = reused = self.known_tokens(engine, prompt.token_ids)
        fitted = None
        if tokens > window and settings.fits_best_parts:
            # Which parts those are hangs on the question: of the price, the most is told.
            fitted, reused = max(window - new_tokens, tokens - in_documents), 0
        parts = PromptParts(
            documents=in_documents,
            conversation=tokens - in_documents,
            answer_room=new_tokens,
            window=window,
            reused=reused,
            fitted=fitted,
        )
        return Forecast(
            parts,
            engine.forecast_run(
                parts.sent, reused_tokens=reused, new_tokens=new_tokens, config=config
            ),
            token_map(cells, prompt.spans, known),
            # What could be dropped is told where nothing is.
            0 if documents else engine.longest_prompt_tokens(config),
            model_name,
        )

    def _turns(self, builder: PromptBuilder, answered: Sequence[Answered]) -> list[Turn]:
        """The turns as this model reads them: the ids of another one's answers are not its own."""
        return [
            one.turn if one.model == self._model.name else builder.reencode(one.turn)
            for one in answered
        ]
