"""The ASGI application: the page, our routes, and the checks in front of them."""

from __future__ import annotations

from typing import Any

from app.server.access import Access
from app.workspace.workspace import Workspace


def create_app(
    workspace: Workspace,
    is_closing: Any = lambda: False,
    access: Access | None = None,
) -> Any:
    """The whole server as an ASGI app: guard, admission, limits, our routes, Gradio's page.

    Args:
        workspace: what the page shows.
        is_closing: tells the streams to end.
        access: from where it can be reached, and by whom.
    """
    import fastapi
    import gradio

    from app.server.admission import Admission
    from app.server.asgi import App
    from app.server.early_script import EarlyScript
    from app.server.guard import Guard
    from app.server.request_limits import RequestLimits
    from app.server.routes.router import routes
    from app.ui.build import build, mount_options

    app = fastapi.FastAPI(openapi_url=None)
    app.include_router(routes(workspace, is_closing))
    demo = build(workspace)
    demo.queue()
    # Gradio's queue looks for work a thousand times a second; twenty are enough here.
    demo._queue.sleep_when_free = 0.05
    page: App = gradio.mount_gradio_app(app, demo, path="/", **mount_options())
    page = RequestLimits(EarlyScript(page, "static/frames.js"))
    access = access or Access()
    if access.token is not None or access.password is not None:
        page = Admission(page, token=access.token, password=access.password)
    return Guard(page, access.host_names, any_address=not access.is_local)
