"""Schemathesis reads the OpenAPI document and tries what it allows, and what it does not."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from servekit import Live
from schemathesis.config import SchemathesisConfig
import pytest

schema = schemathesis.pytest.from_fixture("document")


@pytest.fixture
def document(live: Live):
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
def test_the_server_does_what_its_document_says(case) -> None:
    case.call_and_validate()
