"""How the JSON API says that something is wrong; `views` has the answers to what is right."""

from __future__ import annotations

from tidemill.wire.views import View


class FieldProblem(View):
    field: str | None = None
    """Dotted name of the field, as in the request."""
    message: str


class Problem(View):
    """An error (RFC 9457, `application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """What is wrong, in words."""
    code: str
    """Stable and machine-readable: `invalid_value`, `not_found`, `conflict` …"""
    field: str | None = None
    """Dotted name of the field that is wrong."""
    remedy: str | None = None
    """What to do."""
    request_id: str | None = None
    errors: list[FieldProblem] = []
    """All findings, where there are several."""
