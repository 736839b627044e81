"""docs/agent.schema.json takes what we write, and agrees with the parser on what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import hub
from agents.errors import BundleError
from hub.bundle_format.bundle_folder import FILES
from hub.bundle_format.manifest import parse_manifest
from hub.bundle_format.named_classes import NAMED_CLASSES

SCHEMA = json.loads((Path(hub.__file__).parents[1] / "docs" / "agent.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("kind", ["npg", "sac", "dict"])
def test_what_we_write_fits(kind: str, published: Callable[..., Path]) -> None:
    VALIDATOR.validate(json.loads((published(kind) / "agent.json").read_text()))


def test_names_are_those_of_the_code() -> None:
    assert list(SCHEMA["properties"]["files"]["properties"]) == list(FILES)
    for key, classes in NAMED_CLASSES.items():
        names = SCHEMA["properties"]["policy_kwargs"]["properties"][key]["enum"]
        assert names == sorted(classes)


def test_what_the_schema_refuses_the_parser_refuses(published: Callable[..., Path]) -> None:
    document = json.loads((published("dict") / "agent.json").read_text())
    n_refused = 0
    for key in document:
        for value in (None, 1, -1, 0.5, "text", "../x", [], [1], {}, {"a": 1}, {"type": "Box"}):
            changed = copy.deepcopy(document) | {key: value}
            if not VALIDATOR.is_valid(changed):
                n_refused += 1
                if key == "policy_kwargs":
                    continue  # classes are looked up when the agent is loaded
                with pytest.raises(BundleError):
                    parse_manifest(json.dumps(changed).encode())
    assert n_refused > 100


def test_a_wrong_class_is_refused_by_the_schema(published: Callable[..., Path]) -> None:
    document: dict[str, Any] = json.loads((published() / "agent.json").read_text())
    document["policy_kwargs"]["activation_fn"] = "sigmoid"
    assert not VALIDATOR.is_valid(document)
