"""Model cards: the front matter of README.md, and what the Hub makes of it."""

from __future__ import annotations

import re
from typing import Any

import yaml
from starlette.responses import JSONResponse, Response

from hub_server.calls import Call
from hub_server.errors import bad_request

__all__ = ["card_problems", "front_matter", "tags_of", "validate"]

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_TASKS = ("reinforcement-learning", "robotics", "text-generation", "image-classification")


def front_matter(readme: str) -> dict[str, Any]:
    """Return the metadata of a card; empty where it cannot be read."""
    match = _FRONT_MATTER.match(readme)
    try:
        value = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}


def card_problems(readme: str) -> list[str]:
    """Return what is wrong with the metadata of a card."""
    match = _FRONT_MATTER.match(readme)
    if match is None:
        return []
    try:
        value = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"YAML: {' '.join(str(error).split())}"]
    if value is None:
        return []
    if not isinstance(value, dict):
        return ["the front matter must be a mapping"]
    problems = []
    if not _is_list_of_texts(value.get("tags", [])):
        problems.append('"tags" must be an array of strings')
    texts = ("library_name", "pipeline_tag")
    problems += [f'"{k}" must be a string' for k in texts if not isinstance(value.get(k, ""), str)]
    license_name = value.get("license", "")
    if not isinstance(license_name, str) and not _is_list_of_texts(license_name):
        problems.append('"license" must be a string')
    return problems + _model_index_problems(value.get("model-index", []))


def _model_index_problems(index: object) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    problems = []
    for i, model in enumerate(index):
        where = f"model-index[{i}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            problems.append(f'"{where}.name" is required')
            continue
        if not isinstance(model.get("results"), list):
            problems.append(f'"{where}.results" must be an array')
            continue
        for j, result in enumerate(model["results"]):
            problems += _result_problems(result, f"{where}.results[{j}]")
    return problems


def _result_problems(result: object, where: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be an object']
    problems = []
    task, dataset, metrics = (result.get(key) for key in ("task", "dataset", "metrics"))
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        problems.append(f'"{where}.task.type" is required')
    if dataset is not None and not (
        isinstance(dataset, dict)
        and isinstance(dataset.get("type"), str)
        and isinstance(dataset.get("name"), str)
    ):
        problems.append(f'"{where}.dataset" needs a name and a type')
    if not isinstance(metrics, list) or not all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and m.get("value") is not None
        for m in metrics
    ):
        problems.append(f'"{where}.metrics" needs a type and a value for each')
    return problems


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def tags_of(card: dict[str, Any]) -> tuple[list[str], str | None]:
    """Return the tags that the Hub shows and filters by, and the task."""
    tags = list(card.get("tags", []))
    task = card.get("pipeline_tag") or next((tag for tag in tags if tag in _TASKS), None)
    if card.get("library_name"):
        tags.insert(0, card["library_name"])
    if isinstance(card.get("license"), str):
        tags.append(f"license:{card['license']}")
    if card.get("model-index"):
        tags.append("model-index")
    tags.append("region:us")
    return list(dict.fromkeys(tags)), task


def validate(call: Call) -> Response:
    """Answer ``/api/validate-yaml``."""
    content = call.json().get("content")
    if not isinstance(content, str):
        raise bad_request("The content is missing")
    problems = card_problems(content)
    answer = {"errors": [{"message": problem} for problem in problems], "warnings": []}
    return JSONResponse(answer, 400 if problems else 200)
