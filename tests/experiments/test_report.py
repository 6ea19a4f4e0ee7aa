"""The metrics table and the figures, on made-up metrics."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments import figures
from experiments.evaluate import channel_rank
from experiments.metrics_table import METRICS, render, summarise


def fake_metrics(gain, drops=12, seed=0):
    rng = np.random.default_rng(seed)  # one seed: the same drops for every scheduler
    users = gain * rng.lognormal(15.0, 0.5, size=(drops, 1, 5))
    users[:, :, 4] = np.nan  # a masked user
    fields = {metric.field: gain * rng.uniform(0.4, 0.5, drops) for metric in METRICS}
    fields["cell_throughput"] = np.nansum(users, axis=(1, 2))
    fields["user_throughput"] = users
    fields["first_bler"] = np.full(drops, np.nan)  # what a fidelity without errors reports
    return SimpleNamespace(**fields)


@pytest.fixture
def metrics():
    return {"pf": fake_metrics(1.0), "max_rate": fake_metrics(1.1)}


def test_a_known_gain_is_recovered_and_paired(metrics):
    summary = summarise(metrics)
    cell = summary["cell throughput [Mbit/s]"]
    assert cell["pf"].difference is None
    assert cell["max_rate"].difference == pytest.approx((0.1, 0.1, 0.1))
    expected = np.mean(metrics["pf"].cell_throughput) * 1e-6
    assert cell["pf"].interval.value == pytest.approx(expected)


def test_fifth_percentile_is_pooled_over_drops(metrics):
    found = summarise(metrics)["5 %-ile user [Mbit/s]"]["pf"].interval.value
    assert found == pytest.approx(np.nanpercentile(metrics["pf"].user_throughput, 5) * 1e-6)


def test_table_shows_every_metric_and_scheduler(metrics):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(summarise(metrics), "title"))
    text = console.export_text()
    for metric in METRICS:
        assert metric.label in text
    assert text.count("max_rate") == len(METRICS)
    assert "+10.0 %" in text
    assert "nan" not in text.lower()


def test_one_drop_gives_a_table_without_intervals():
    metrics = {"pf": fake_metrics(1.0, drops=1), "rr": fake_metrics(0.9, drops=1)}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(summarise(metrics), "title"))
    assert "unknown" in console.export_text()


def test_figures_are_written_whole(metrics, tmp_path):
    figures.throughput_cdf(metrics, tmp_path / "cdf.png", "title")
    figures.throughput_jain(metrics, tmp_path / "jain.png", "title")
    rng = np.random.default_rng(0)
    owners = {name: rng.integers(-1, 4, size=(30, 12)) for name in metrics}
    figures.prb_map(owners, np.arange(4), tmp_path / "map.png", "title")
    written = sorted(tmp_path.iterdir())
    assert [path.name for path in written] == ["cdf.png", "jain.png", "map.png"]
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_users_are_ranked_by_bits_per_prb():
    owner = np.array([[0, 0, 0, 1], [2, 2, -1, -1]])
    bits = np.array([[30.0, 50.0, 0.0, 0.0], [0.0, 0.0, 80.0, 0.0]])
    # 10, 50 and 40 bits per PRB; user 3 held none
    np.testing.assert_array_equal(channel_rank(owner, bits), [1, 3, 2, 0])
