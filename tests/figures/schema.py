"""What experiments/schema.json says of a result, and what of a document is not so."""

import fnmatch
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "experiments/schema.json").read_text())
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
         "number": (int, float), "null": type(None)}
# What of JSON Schema is understood here; anything else in the schema is an error.
KEYWORDS = {"$ref", "description", "type", "enum", "pattern", "minimum", "maximum",
            "exclusiveMinimum", "required", "properties", "additionalProperties", "minItems",
            "items"}


def is_a(value, name):
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, TYPES[name])


def problems(value, schema, where=""):
    """What keeps `value` from the schema, a line each: the place and what should be there."""
    unknown = set(schema) - KEYWORDS
    if unknown:
        raise ValueError(f"schema of {where}: {', '.join(sorted(unknown))}: not understood")
    found = []
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/definitions/")
        found += problems(value, SCHEMA["definitions"][name], where)
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(is_a(value, name) for name in types):
        return found + [f"{where}: {' or '.join(types)}"]
    if "enum" in schema and not any(value == one and type(value) is type(one)
                                    for one in schema["enum"]):
        found.append(f"{where}: one of {schema['enum']}")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{where}: text like {schema['pattern']}")
    if is_a(value, "number"):
        for name, holds in (("minimum", lambda limit: value >= limit),
                            ("maximum", lambda limit: value <= limit),
                            ("exclusiveMinimum", lambda limit: value > limit)):
            if name in schema and not holds(schema[name]):
                found.append(f"{where}: {name} {schema[name]}")
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        found += [f"{where}.{name}: is missing" for name in schema.get("required", [])
                  if name not in value]
        for name, inner in value.items():
            if name in fields:
                found += problems(inner, fields[name], f"{where}.{name}")
            elif schema.get("additionalProperties", True) is False:
                found.append(f"{where}.{name}: no such field")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            found.append(f"{where}: at least {schema['minItems']} entries")
        for index, inner in enumerate(value):
            found += problems(inner, schema.get("items", {}), f"{where}[{index}]")
    return found


def schema_of(name):
    """The schema of a path below results/; None where no pattern has it."""
    fitting = [one for pattern, one in SCHEMA["files"].items() if fnmatch.fnmatch(name, pattern)]
    return fitting[0] if len(fitting) == 1 else None
