"""The manifests of `deploy/`, and a check of them like Kubernetes'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = ROOT / "tests/deploy/schemas"


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]


def containers(value: Any) -> list[dict[str, Any]]:
    """Return all containers in an object that run our image."""
    if isinstance(value, list):
        return [found for each in value for found in containers(each)]
    if not isinstance(value, dict):
        return []
    own = [value] if str(value.get("image", "")).startswith("driftline") else []
    return own + [found for each in value.values() for found in containers(each)]


def scraped(value: Any) -> set[str]:
    """Return all ports in an object that Prometheus should scrape."""
    if isinstance(value, list):
        return set().union(*map(scraped, value))
    if not isinstance(value, dict):
        return set()
    return {value.get("prometheus.io/port", "")}.union(*map(scraped, value.values())) - {""}


def refusals(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with an object: where, and why."""
    return [
        f"{error.json_path}: {error.message}" for error in validator(document["kind"]).iter_errors(document)
    ]


@cache
def validator(kind: str) -> Draft202012Validator:
    """Return a validator that refuses properties that the schema of a kind does not have."""
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    for each in objects(schema):
        if "properties" in each and not each.get("x-kubernetes-preserve-unknown-fields"):
            each.setdefault("additionalProperties", False)
    return Draft202012Validator(schema)


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema within a schema. A property may be called `properties`: then it is no keyword."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            children = value.values()
        else:
            children = value if key in ("oneOf", "anyOf", "allOf") else [value]
        for child in children:
            if key in ("properties", "$defs", "items", "additionalProperties", "oneOf", "anyOf", "allOf"):
                yield from objects(child)
