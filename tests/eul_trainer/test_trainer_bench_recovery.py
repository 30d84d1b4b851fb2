"""The attack on stored moments: it must find what is there to be found, or its figures would reassure for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHES = Path(__file__).resolve().parents[1] / "benchmarks" / "trainer"


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHES))
    import recovering.attack

    return recovering.attack


def normal(tokens: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_the_blocks_inverses(attack: ModuleType) -> None:
    """Seven columns in blocks of three: two whole ones and a rest of one, each inverted on its own."""
    x, probe = normal(40, 7, 0), normal(5, 7, 1)
    expected = torch.zeros(len(attack.RIDGES), 5)
    for first, last in ((0, 3), (3, 6), (6, 7)):
        gram = x[:, first:last].T @ x[:, first:last] / 40
        for place, ridge in enumerate(attack.RIDGES):
            inverse = (gram + ridge * gram.diagonal().mean() * torch.eye(last - first)).inverse()
            expected[place] += (probe[:, first:last] @ inverse * probe[:, first:last]).sum(1) / 7
    torch.testing.assert_close(attack.Spectrum.of(x, 3).distances(probe), expected)


def test_a_whole_gram_of_few_tokens_gives_all_of_them_away(attack: ModuleType) -> None:
    inside, outside, known = (normal(16, 48, seed) for seed in (1, 2, 3))
    stored, theirs = ([attack.Spectrum.of(x, 48)] for x in (inside, known))
    found = [attack.scores(stored, theirs, [x])[0] for x in (inside, outside)]
    assert attack.auc(*found) == 1.0
    assert attack.share_found(*found) == 1.0


def test_a_gram_of_many_tokens_hides_independent_ones(attack: ModuleType) -> None:
    """A member lies nearer by a share of about 2 d / n, which 4096 tokens in 8 columns make next to nothing."""
    inside, outside, known = (normal(4096, 8, seed) for seed in (1, 2, 3))
    stored, theirs = ([attack.Spectrum.of(x, 8)] for x in (inside, known))
    found = [attack.scores(stored, theirs, [x])[0] for x in (inside, outside)]
    assert attack.auc(*found) == pytest.approx(0.5, abs=0.04)


def test_means_and_variances_measure_in_standard_deviations(attack: ModuleType) -> None:
    x = torch.tensor([[1.0, 10.0], [3.0, 10.0], [1.0, 14.0], [3.0, 14.0]])  # means 2 and 12, variances 1 and 4
    found = attack.Spread.of(x).distances(torch.tensor([[2.0, 12.0], [4.0, 12.0], [2.0, 16.0]]))
    for place, ridge in enumerate(attack.RIDGES):
        level = 2.5 * ridge  # of the mean variance
        expected = [0.0, 4 / (1 + level) / 2, 16 / (4 + level) / 2]
        assert found[place].tolist() == pytest.approx(expected, rel=1e-4)


def test_silent_units_are_no_evidence(attack: ModuleType) -> None:
    silent, known = torch.zeros(3, 4), normal(50, 4, 1)
    stored, theirs = ([attack.Spectrum.of(x, 4)] for x in (normal(50, 4, 2), known))
    assert attack.scores(stored, theirs, [silent]).abs().max() == 0


def test_figures(attack: ModuleType) -> None:
    """Of the four pairs two are won, one is a tie and one is lost: 2.5 of 4."""
    assert attack.auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0])) == 0.625
    assert attack.share_found(torch.tensor([5.0, 0.5]), torch.tensor([0.0, 1.0])) == 0.5
    low, high = attack.interval([0.4, 0.6] * 50)
    assert low == pytest.approx(0.5 - 1.96 * 0.01, abs=0.004)  # deviation 0.1 of 100 values: 0.01 of their mean
    assert high == pytest.approx(0.5 + 1.96 * 0.01, abs=0.004)
    vectors = attack.Spectrum.of(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0])), 4).parts[0][1][0]
    states = torch.tensor([[3.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 7.0]])
    member = torch.tensor([True, True, False])
    assert attack.read_off(vectors, states, member) == 0.5  # two of four are tokens of the request


def test_the_benchmark_runs(attack: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    rows = [
        {"question": f"What did writer {number // 20} do in year {number}?", "answer": f"Book {number * 7919 % 1000}."}
        for number in range(80)
    ]
    (tmp_path / "full.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import bench_recovery

    out = tmp_path / "recovery.json"
    words = f"{tiny_model} --tofu {tmp_path} --authors 1 --draws 1 --blocks 0 --trained --out {out}"
    bench_recovery.main(words.split())
    found = json.loads(out.read_text())
    assert [row["per_column"] for row in found["units"]] == [1, 2, 4, 8, 16]
    assert all(0 <= row["auc"] <= 1 for part in ("units", "inputs", "low_rank") for row in found[part])
    assert 0 <= found["trained"]["auc_of_the_layer"] <= 1
    assert "tiny" not in found["command"]
