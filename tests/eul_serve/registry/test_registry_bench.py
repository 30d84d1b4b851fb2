"""The registry's benchmarks: bundles of a chosen size, the script run on little, and the summary of the records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "registry"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "trainer"))

from moving.bundle import make_bundle
from moving.copied import SUMS, Copied
from moving.ours import Ours
from moving.rounds import one_round, summed

from eul_serve.errors import BundleFormatError, EulError
from eul_serve.format import Bundle

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "registry"
RESULTS = FOLDER.parents[2] / "docs" / "benchmarks" / "registry"
MB = 10**6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the size of one hidden unit in each layer, 1 MB."""
    return make_bundle(tmp_path_factory.mktemp("moved") / "bundle", 1 * MB, seed=0)


def test_a_bundle_is_valid_and_nearly_of_the_size_asked_for(tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "bundle", 20 * MB, seed=0)  # read back with every check
    assert abs(made.weights.stat().st_size / (20 * MB) - 1) < 0.05
    assert len(made.widths) == 32


@pytest.mark.parametrize("sums", SUMS)
def test_a_peer_copies_everything_and_notices_damage(bundle: Bundle, tmp_path: Path, sums: str) -> None:
    peer = Copied(bundle, tmp_path / "peer", sums)
    peer.publish()
    peer.pull(tmp_path / "pulled")
    for path in bundle.path.iterdir():
        assert (tmp_path / "pulled" / path.name).read_bytes() == path.read_bytes()
    (tmp_path / "peer" / "stored" / "README.md").write_text("# Other words\n")
    with pytest.raises(EulError, match="status"):
        peer.pull(tmp_path / "again")


def test_what_a_second_publication_sends_is_counted(bundle: Bundle, tmp_path: Path) -> None:
    ours = Ours(bundle, str(tmp_path / "registry"))
    ours.publish()
    assert ours.sent == sum(entry.size for entry in bundle.manifest.files.values())
    ours.publish()
    assert ours.sent == 0
    card = bundle.manifest.files["README.md"]
    (tmp_path / "registry/blobs/sha256" / card.sha256.removeprefix("sha256:")).unlink()
    ours.publish()
    assert ours.sent == card.size


def test_a_round_fails_where_what_was_pulled_is_not_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    class Careless(Copied):
        def pull(self, target: Path) -> None:
            super().pull(target)
            (target / "README.md").write_text("# Other words\n")

    movers = {"ours": Ours(bundle, str(tmp_path / "registry")), "cp": Careless(bundle, tmp_path / "peer", "sha256sum")}
    with pytest.raises(BundleFormatError, match=r"README\.md"):
        one_round(bundle, movers, tmp_path / "pulled")


def test_ratios_are_of_speeds_and_within_a_round() -> None:
    def a_round(ours: float, peer: float) -> dict[str, dict[str, float]]:
        return {
            "publish": {"ours": ours, "cp": peer},
            "pull": {"ours": peer, "cp": ours},
            "second_publish": {"ours": 1.0},
            "second_sent": {"ours": 0},
            "check": {"ours": 2.0},
        }

    found = summed([a_round(1.0, 2.0), a_round(10.0, 5.0), a_round(1.0, 1.0)], 7)
    assert found["publish_vs_cp"] == 1.0  # of 2, a half and 1; twice our time is half our speed
    assert found["ranges"] == {"publish_vs_cp": [0.5, 2.0], "pull_vs_cp": [0.5, 2.0]}
    assert found["publish_seconds"] == {"cp": 2.0, "ours": 1.0}
    assert found["second_publish"] == {"bytes_uploaded": 0, "seconds": 1.0}


def test_the_script_on_little(tmp_path: Path) -> None:
    (tmp_path / "transfer.json").write_text(json.dumps({"stores": {"oci": {"kept": True}}}))
    run("bench_transfer.py", "--stores", "directory", "--sizes", "5", "--rounds", "1",
        "--place", str(tmp_path / "place"), "--out", str(tmp_path))  # fmt: skip
    stores = json.loads((tmp_path / "transfer.json").read_text())["stores"]
    assert stores["oci"] == {"kept": True}
    one = stores["directory"]["sizes"]["5 MB"]
    assert one["second_publish"]["bytes_uploaded"] == 0
    assert {f"{act}_vs_{peer}" for act in ("publish", "pull") for peer in stores["directory"]["peers"]} <= one.keys()
    assert str(tmp_path) not in (tmp_path / "transfer.json").read_text()
    assert list((tmp_path / "place").iterdir()) == []


def test_a_place_without_room_is_said_in_one_line(tmp_path: Path) -> None:
    line = [sys.executable, str(FOLDER / "bench_transfer.py"), "--stores", "directory", "--sizes", str(10**9)]
    done = subprocess.run([*line, "--place", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "give another --place" in done.stderr


def test_the_summary_has_null_for_what_was_not_measured(tmp_path: Path) -> None:
    begun = {"machine": {"cores": 2}, "command": "c"}
    write(tmp_path / "model_test.json", {"steps": 1000, "crashes": 90, "lost": 0, "seeds": 4, **begun})
    sizes = {"5 MB": {"publish_vs_cp": 1.5, "pull_vs_cp": 2.0, "second_publish": {"bytes_uploaded": 0, "seconds": 1}}}
    write(tmp_path / "transfer.json", {"stores": {"directory": {"peers": ["cp"], "sizes": sizes, **begun}}})
    run("summary.py", "--results", str(tmp_path))
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["model_test"] == {"steps": 1000, "crashes": 90, "lost": 0}
    assert found["publish_vs_peer"] == {"directory": {"5 MB": 1.5}}
    assert found["pull_vs_peer"] == {"directory": {"5 MB": 2.0}}
    assert found["second_publish"] == {"directory": {"5 MB": {"bytes_uploaded": 0, "seconds": 1}}}
    assert {found[name] for name in ("publish_vs_second_peer", "cold_start", "listing", "polling")} == {None}
    assert found["machine"] == {"directory": {"cores": 2}, "model_test": {"cores": 2}}


def test_the_committed_summary_is_that_of_the_committed_files(tmp_path: Path) -> None:
    for path in RESULTS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run("summary.py", "--results", str(tmp_path))
    assert (tmp_path / "summary.json").read_text() == (RESULTS / "summary.json").read_text()


def run(script: str, *words: str) -> None:
    subprocess.run([sys.executable, str(FOLDER / script), *words], check=True, timeout=240, capture_output=True)


def write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record))
