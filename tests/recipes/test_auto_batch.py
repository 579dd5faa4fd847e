"""--auto-batch: the planner's arithmetic, its refusals, and one real choice."""

import pytest
import yaml
from conftest_pipeline import call_tool, write

from dfad_seg.common.errors import InputError
from dfad_seg.config import parse_config
from dfad_seg.recipes import auto_batch
from dfad_seg.recipes.auto_batch import largest_batch, peak_memory, with_largest_batch
from dfad_seg.recipes.lengths import with_minutes

GIB = 2**30


def test_the_largest_batch_lies_on_the_line_through_the_probes():
    # 1 GiB and 0.1 GiB per image: 4 images take 1.4 GiB, 12 take 2.2.
    assert largest_batch((4, 12), (int(1.4 * GIB), int(2.2 * GIB)), 4.05 * GIB) == 30
    assert largest_batch((8, 24), (int(1.8 * GIB), int(3.4 * GIB)), 4.05 * GIB, least=4) == 30
    for least, gib in ((2, 1.2), (8, 1.8)):
        with pytest.raises(InputError, match=f"a batch of {least} needs {gib} GiB, and 1.1 GiB may be used"):
            largest_batch((4, 12), (int(1.4 * GIB), int(2.2 * GIB)), 1.1 * GIB, least=least)


def test_no_more_than_the_memory_holds_and_an_image_for_each_sub_generator(world, monkeypatch):
    tried = []
    monkeypatch.setattr(auto_batch, "peak_memory", lambda config, batch: tried.append(batch) or GIB + batch * GIB // 10)
    monkeypatch.setattr(auto_batch, "free_memory", lambda: 4 * GIB)
    generator = {"type": "layout", "sub_generators": 6}
    config = parse_config(world.configs["dfad"] | {"generator": generator, "batch_size": 12})
    assert with_largest_batch(config).batch_size == 24 and tried == [6, 14]
    # On a GPU the chosen batch is tried, which a larger one than that could not be.
    monkeypatch.setattr(auto_batch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(auto_batch.torch.cuda, "mem_get_info", lambda: (4 * GIB, 4 * GIB))
    config = parse_config(world.configs["dfad"] | {"batch_size": 4, "replay": {"size": 9, "steps": 1}})
    assert with_largest_batch(config).batch_size == 9 and tried[2:] == [4, 12, 9]


def test_several_processes_and_methods_with_data_are_refused(world):
    dfad = world.configs["dfad"]
    with pytest.raises(InputError, match="one process"):
        with_largest_batch(parse_config(dfad | {"devices": 2}))
    with pytest.raises(InputError, match="data-free methods, and method is distill_with_data"):
        with_largest_batch(parse_config(world.configs["distill_with_data"]))
    with pytest.raises(InputError, match="only data-free runs are timed"):
        with_minutes(parse_config(world.configs["distill_with_data"]), 3)


@pytest.mark.slow
def test_a_probe_measures_more_for_more_images_and_tells_what_is_wrong(world):
    config = parse_config(world.configs["dfad"] | {"image_size": [64, 64]})
    small, large = (peak_memory(config, batch) for batch in (4, 84))
    assert 50 * 2**20 < large - small < 4 * GIB
    broken = parse_config(world.configs["dfad"] | {"image_size": [40, 40]})
    with pytest.raises(InputError, match="multiples of 16"):
        peak_memory(broken, 4)


def test_the_choice_is_the_runs_batch_size_and_resuming_keeps_it(world, tmp_path, monkeypatch, capsys):
    config = write(tmp_path / "config.yaml", world.configs["dfad"] | {"iterations": 2})
    monkeypatch.setattr(auto_batch, "peak_memory", lambda config, batch: GIB + batch * GIB // 10)
    monkeypatch.setattr(auto_batch, "free_memory", lambda: 2 * GIB)
    assert call_tool("train", config, "--work-dir", tmp_path / "run", "--auto-batch") == 0
    assert "auto-batch: batch_size 6, for 1.7 GiB" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["batch_size"] == 6
    monkeypatch.setattr(auto_batch, "peak_memory", lambda config, batch: pytest.fail("measured again"))
    assert call_tool("train", config, "--work-dir", tmp_path / "run", "--auto-batch", "--resume") == 0
