"""The state behind the page: documents, chats, settings, model and runs."""
