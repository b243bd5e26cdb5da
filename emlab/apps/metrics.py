"""Figures of a controller for Prometheus: clouds by state, and how often and how long what was done to them."""

from __future__ import annotations

import threading
from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from emlab.controller import Controller
from emlab.state import CloudState

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one controller. Thread-safe; nobody's name is in them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._lock = threading.Lock()
        self._seen = 0
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._clouds = Gauge("emlab_clouds", "Clouds of the lab.", ["state"], registry=self._registry)
        self._open = Gauge("emlab_open_vaults", "Clouds whose vault is open.", registry=self._registry)
        self._leases = Gauge("emlab_leases", "Leases that keep clouds awake.", registry=self._registry)
        self._spans = Histogram(
            "emlab_span_seconds",
            "How long it took what was done to clouds and succeeded.",
            ["span"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._failed = Counter("emlab_failed_spans", "What failed.", ["span"], registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The figures now, and their media type. Asks the engine."""
        statuses = self._controller.clouds().statuses()
        with self._lock:
            states = Tally(status.state for status in statuses)
            for state in CloudState:
                self._clouds.labels(state.value).set(states[state.value])
            self._open.set(sum(bool(status.vault_open) for status in statuses))
            self._leases.set(sum(status.leases for status in statuses))
            events, self._seen = self._controller.recorder.since(self._seen)
            for event in events:
                if event.ok:
                    self._spans.labels(event.span).observe(event.duration_s)
                else:
                    self._failed.labels(event.span).inc()
            return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
