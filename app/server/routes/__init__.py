"""HTTP routes: documents, chats, library, and what they refuse."""
