"""Form of the policy editor: the kinds and their fields, from the schemas of `greencore.policy`."""

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from api.dashboard.form_fields import FormField, Schema, fields_of, form_field
from api.policies.simulation_request import SimulationRequest
from greencore.policy import PolicyBody
from greencore.policy.models import POLICY_KINDS

# Initial policy of the editor, and the values that choosing a kind puts into empty fields.
EXAMPLES: dict[str, dict[str, Any]] = {
    "constant": {"kind": "constant", "rho": 0.7},
    "steps": {
        "kind": "steps",
        "steps": [{"up_to": 150, "rho": 1.0}, {"up_to": 300, "rho": 0.7}, {"rho": 0.5}],
    },
    "linear": {"kind": "linear", "clean": 100, "dirty": 400, "rho_max": 1.0, "rho_min": 0.4},
    "percentile": {"kind": "percentile", "window_hours": 168, "gamma": 1.0, "rho_max": 1.0, "rho_min": 0.4},
    "budget": {"kind": "budget", "budget_gco2e": 500, "rho_max": 1.0, "rho_min": 0.4},
    "price": {"kind": "price", "gco2e_per_loss": 50, "rho_max": 1.0, "rho_min": 0.4},
}
RUN = ("work_hours", "epochs", "deadline_hours", "power_w", "forecast")
COMMON = ("kind", "on_missing", "gate", "smoothing", "steps")


def policy_form() -> dict[str, Any]:
    """Build the form's parts for its template from the schema; a field that several kinds define alike appears once."""
    schema = TypeAdapter(PolicyBody).json_schema()
    parts = {definition["title"].lower(): definition for definition in schema["$defs"].values()}
    fields: dict[tuple[str, str], FormField] = {}
    for kind in POLICY_KINDS:
        for field in fields_of(parts[kind]):
            if field.name not in COMMON:
                known = fields.setdefault((field.name, field.hint), field)
                fields[field.name, field.hint] = replace(known, kinds=(*known.kinds, kind))
    properties = parts[POLICY_KINDS[0]]["properties"]
    [rho] = fields_of(parts["fixedrho"], prefix="on_missing.")
    return {
        "kinds": {kind: _description(parts[kind]) for kind in POLICY_KINDS},
        "fields": sorted(fields.values(), key=lambda field: field.name.startswith("rho_")),
        "step": fields_of(parts["step"]),
        "sections": [_section(path, parts[path], properties[path]) for path in ("gate", "smoothing")],
        "on_missing": _on_missing(properties["on_missing"]),
        "missing_rho": rho,
    }


def run_fields() -> tuple[FormField, ...]:
    """Return the fields of a backtest's run."""
    schema = SimulationRequest.model_json_schema(by_alias=True)
    return tuple(form_field(name, schema["properties"][name]) for name in RUN)


def _section(path: str, schema: Schema, property_: Schema) -> dict[str, Any]:
    """Return an object within a policy; `absent` are its values where it is left out."""
    return {
        "path": path,
        "description": _description(schema),
        "fields": fields_of(schema, prefix=f"{path}."),
        "absent": property_["default"],
    }


def _on_missing(schema: Schema) -> FormField:
    """Return the choice of the named rules, with "rho" for the object that fixes one."""
    rules = next(part["enum"] for part in schema["oneOf"] if "enum" in part)
    return form_field("on_missing", {"enum": [*rules, "rho"], "default": schema["default"]})


def _description(schema: Schema) -> str:
    return " ".join(str(schema["description"]).split())
