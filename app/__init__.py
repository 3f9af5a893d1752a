"""The product around the engine: documents, prompt, jobs, page and command line."""

import os

# Nothing about its use is told to anyone. Libraries read these when they are imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
