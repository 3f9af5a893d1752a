"""The product around the engine: documents, prompt, jobs, page and command line."""
