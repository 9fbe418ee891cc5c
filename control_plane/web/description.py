"""The OpenAPI description: every operation says which problems it may answer with."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from control_plane.web.auth import PUBLIC
from control_plane.web.problems import MEDIA_TYPE, ProblemDetails
from protocol.payload import PAYLOAD_PATH

TAGS: Final = [
    {"name": "models", "description": "Bundles and versions."},
    {"name": "approval", "description": "Drafts that approvers sign, and the deny list."},
    {"name": "devices", "description": "Enrolment, labels, pins, what devices report."},
    {"name": "rollouts", "description": "Bringing a version to devices in waves, and back."},
    {"name": "telemetry", "description": "Drift by cohort, records, events."},
    {"name": "alarms", "description": "What was found in inputs, the budget, who is told."},
    {"name": "trust", "description": "Signed metadata, for an approver's own TUF client."},
    {"name": "people", "description": "Who may call the API, in which role."},
    {"name": "audit", "description": "Who changed what, in a chain that shows when it is touched."},
    {"name": "control plane", "description": "Health, operations, the catalogue of problems."},
]

_REFERENCE: Final = "#/components/schemas/{model}"
_ALWAYS: Final = {"422": "The request is not valid", "500": "A fault in Outrider"}
_CLOSED: Final = {
    "401": "A token is missing or wrong",
    "403": "The role does not allow it",
    "404": "There is no such thing",
    "429": "Too many wrong tokens came from this address",
}
_WRITING: Final = {"409": "In conflict with what is there now"}
_RANGES: Final = {"416": "It has no such bytes", "503": "As many as may read at a time do"}


def describe(app: FastAPI) -> dict[str, Any]:
    """Made once and kept by the application."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
    )
    schemas = schema["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = TypeAdapter(ProblemDetails).json_schema(ref_template=_REFERENCE)
    schemas.update(problem.pop("$defs", {}))
    schemas["ProblemDetails"] = problem
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["responses"].update(_problems(path, method))
    app.openapi_schema = schema
    return schema


def _problems(path: str, method: str) -> dict[str, Any]:
    said = {**_ALWAYS}
    if path not in PUBLIC:
        said |= _CLOSED
    if method != "get":
        said |= _WRITING
    if path.startswith(PAYLOAD_PATH):
        said |= _RANGES
    reference = {"$ref": _REFERENCE.format(model="ProblemDetails")}
    return {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": reference}}}
        for status, text in said.items()
    }
