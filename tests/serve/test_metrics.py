"""Metrics with closed labels, and the dashboard and alerts that ask for them."""

from __future__ import annotations

import json
import random
import re
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from servekit import Stats, Stub, make_server, running

from foretell.errors import StoreError
from foretell.generate import Usage
from foretell.safety.policy import SCORED
from foretell.serve.app import create_app
from foretell.serve.metrics import ACTIONS, LIMITS, ROUTES, SIDES, STATUSES, STEPS, WORK, Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = re.compile(r"\bforetell_\w+")


class Engine:
    def stats(self) -> Stats:
        return Stats()


class Kept(dict[str, int]):
    def add(self, name: str, count: int = 1) -> None:
        self[name] = self.get(name, 0) + count


def make(**more: Any) -> Metrics:
    return Metrics(lambda: {"gpt": Engine()}, lambda: {"active": 1, "waiting": 0}, **more)


def values(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True) if sample.labels else ''}": sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def all_of_it(metrics: Metrics) -> None:
    """Something of every family."""
    metrics.answered("/v1/chat/completions", 200, 1.5, 0.25)
    metrics.used("gpt", Usage(30, 9, 12, 4))
    metrics.wrote("gpt", 9, 0.5)
    metrics.flagged("input", ["hate", "violence"], "block")
    metrics.capped("tokens")
    metrics.struck("warned")
    metrics.queued(3, 60.0)
    with metrics.moderating("output"), metrics.storing("reserve"):
        pass


def test_what_is_counted() -> None:
    kept = Kept()
    metrics = make(tally=kept)
    all_of_it(metrics)
    metrics.answered("/v1/completions", 503, 0.1, None)
    metrics.answered("/v1/completions", 429, 0.1, None)
    metrics.answered("/health", 200, 0.1, None)
    with pytest.raises(StoreError), metrics.storing("settle"):
        raise StoreError("gone")
    found = values(metrics)
    assert found['foretell_requests_total{"route": "/v1/completions", "status": "503"}'] == 1
    assert found['foretell_request_seconds_sum{"route": "/v1/chat/completions"}'] == 1.5
    assert found['foretell_first_token_seconds_sum{"route": "/v1/chat/completions"}'] == 0.25
    for kind, count in {"prompt": 30, "completion": 9, "image": 12, "cached": 4}.items():
        assert found[f'foretell_tokens_total{{"kind": "{kind}", "model": "gpt"}}'] == count
    assert found['foretell_tokens_per_second_sum{"model": "gpt"}'] == 18
    for category in ("hate", "violence"):
        assert found[f'foretell_findings_total{{"action": "block", "category": "{category}", "side": "input"}}'] == 1
    assert found['foretell_caps_reached_total{"limit": "tokens"}'] == 1
    assert found['foretell_caps_reached_total{"limit": "budget"}'] == 0, "there from the start, for rates"
    assert (
        found['foretell_strikes_total{"step": "warned"}'] == 1
        and found['foretell_strikes_total{"step": "banned"}'] == 0
    )
    assert found["foretell_cases_waiting"] == 3 and found["foretell_oldest_case_seconds"] == 60
    assert found['foretell_moderation_seconds_count{"side": "output"}'] == 1
    assert found['foretell_store_seconds_count{"work": "settle"}'] == 1
    assert found['foretell_store_failures_total{"work": "settle"}'] == 1
    assert found['foretell_store_failures_total{"work": "reserve"}'] == 0
    assert kept == {"requests": 3, "errors": 1, "refused": 1, "prompt": 30, "completion": 9, "caps:tokens": 1}


def test_a_thousand_made_up_names_add_no_series() -> None:
    """First every label's value that is known, and one that is not; then 1,000 that nobody knows."""
    metrics = make(models=lambda: ["behind"])

    def throw(route: str, status: int, model: str, side: str, category: str, action: str, limit: str) -> None:
        metrics.answered(route, status, 0.1, 0.1)
        metrics.used(model, Usage(1, 1))
        metrics.wrote(model, 1, 1.0)
        metrics.flagged(side, [category], action)
        metrics.capped(limit)
        metrics.struck(limit)
        with metrics.moderating(side), metrics.storing(limit):
            pass

    for route in (*ROUTES, "?"):
        for status in (*STATUSES, "777"):
            metrics.answered(route, int(status), 0.1, 0.1)
    for name in ("gpt", "behind", "?"):
        throw("?", 777, name, "?", "?", "?", "?")
    for side in (*SIDES, "?"):
        for action in (*ACTIONS, "?"):
            metrics.flagged(side, [*SCORED, "?"], action)
    before = len(values(metrics))
    assert before > 1000
    rng = random.Random(0)
    for _ in range(1000):
        name = "".join(rng.choices(string.ascii_letters + '/{}-"\\\n', k=rng.randint(1, 40)))
        throw(name, rng.randint(600, 10_000), name, name, name, name, name)
    found = values(metrics)
    assert len(found) == before
    assert found['foretell_tokens_total{"kind": "prompt", "model": "other"}'] == 1001
    assert found['foretell_caps_reached_total{"limit": "other"}'] == 1003
    metrics.flagged("input", ["privacy"], "flag")
    assert len(values(metrics)) == before
    metrics.judges(["privacy"])
    assert len(values(metrics)) == before + len(SIDES) * len(ACTIONS)
    metrics.serves(["/keys/{id}"])
    metrics.answered("/keys/{id}", 200, 0.1, None)
    assert len(values(metrics)) > before, "a new route of the application's own is told"


def test_callers_of_a_running_server_add_no_series() -> None:
    with running(make_server({"demo": Stub()})) as live:
        live.http.get("/wp-login.php")
        live.http.post("/v1/completions", json={"model": "nobody", "prompt": "x"})
        live.http.get("/metrics")
        live.http.get("/wp-login.php")  # once this is answered, the one before is counted
        before = values(live.server.metrics)
        for i in range(50):
            live.http.get(f"/made/up/{i}")
            live.http.get(f"/v1/models/name-{i}")
            live.http.post("/v1/completions", json={"model": f"name-{i}", "prompt": "x"})
        after = values(live.server.metrics)
    new = {name for name in after if name not in before}
    assert all("/v1/models/{model:path}" in name for name in new), new
    assert not any("name-" in name or "made" in name for name in after)


def test_every_route_of_the_api_is_known() -> None:
    app = create_app(make_server({"demo": Stub()}))
    assert {route.path for route in app.routes} <= set(ROUTES)  # type: ignore[attr-defined]


def test_limits_are_those_of_the_gateway() -> None:
    from foretell.serve.limits.standing import KINDS

    assert LIMITS == KINDS and "other" not in (*LIMITS, *STEPS, *WORK)


def exported() -> dict[str, str]:
    """Every name that a query may use, with its family."""
    metrics = make()
    all_of_it(metrics)
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        if not family.name.endswith("_created"):
            found |= {sample.name: family.name for sample in family.samples}
    return found


def queries(node: Any) -> Iterator[str]:
    """Of panels, of panels in rows, and of the board's variables."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(node, list):
        for value in node:
            yield from queries(value)


def test_the_dashboard_asks_for_what_is_exported_and_shows_all_of_it() -> None:
    board = json.loads((DEPLOY / "grafana" / "foretell.json").read_text())
    known = exported()
    asked = {name for query in queries(board) for name in NAME.findall(query)}
    assert asked <= set(known), f"not exported: {asked - set(known)}"
    assert {known[name] for name in asked} == set(known.values()), set(known.values()) - {known[n] for n in asked}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["title"] and panel["targets"] and panel["datasource"]["uid"] == "${source}" for panel in panels)
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24, "panels lie on each other"


def test_labels_that_queries_name_are_there() -> None:
    metrics = make()
    all_of_it(metrics)
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    board = json.loads((DEPLOY / "grafana" / "foretell.json").read_text())
    asked = [*queries(board), *(rule["expr"] for rule in rules())]
    selectors = [found for query in asked for found in re.findall(r"(foretell_\w+)\{([^}]*)\}", query)]
    assert selectors
    for name, inside in selectors:
        assert set(re.findall(r"(\w+)\s*[=!]", inside)) <= labels[name] | {"instance", "job"}, (name, inside)


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_alerts_ask_for_what_is_exported() -> None:
    known = exported()
    for rule in rules():
        assert rule["alert"] and rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "ticket")
        asked = set(NAME.findall(rule["expr"]))
        assert asked <= set(known) and (asked or "up{" in rule["expr"]), rule["alert"]
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    assert scrape["rule_files"] == ["alerts.yaml"] and scrape["scrape_configs"][0]["job_name"] == "foretell"


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, which comes with Prometheus, is not installed")
def test_alerts_ring_when_they_should_and_not_before() -> None:
    for words in (["test", "rules", "alerts_test.yaml"], ["check", "rules", "alerts.yaml"]):
        done = subprocess.run(["promtool", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    metrics = make()
    all_of_it(metrics)
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics.text(), capture_output=True)
    assert b"error" not in done.stderr.lower(), done.stderr
