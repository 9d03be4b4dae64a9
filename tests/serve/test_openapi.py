"""Schemathesis reads the OpenAPI document and tries what it allows, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from servekit import Live

OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/moderations"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def document(live: Live) -> Any:
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


def test_every_operation_is_tried(document: Any) -> None:
    found = [operation.ok() for operation in document.get_all_operations()]
    assert sorted((operation.method.upper(), operation.path) for operation in found) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_server_does_what_its_document_says(document: Any, method: str, path: str, mode: GenerationMode) -> None:
    operation = document[path][method]
    if mode is GenerationMode.NEGATIVE and method == "GET":
        return

    @settings(max_examples=20, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        # Rules that bind two fields, such as tools and tool_choice, are no part of a JSON schema.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    attempt()
