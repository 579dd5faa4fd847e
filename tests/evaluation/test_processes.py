"""Two processes that evaluate a share each: an odd number of images is neither padded nor counted twice."""

import multiprocessing
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from dfad_seg.evaluation import evaluate_miou


def network(images):
    return images * torch.tensor([1.0, 2.0, 0.5]).view(1, 3, 1, 1)


def samples():
    rng = torch.Generator().manual_seed(0)
    return torch.rand(5, 3, 6, 7, generator=rng), torch.randint(0, 3, (5, 6, 7), generator=rng)


def work(rank, meeting, results):
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    images, masks = samples()
    mine = slice(rank, None, 2)  # as eval_loader shares them out

    def all_reduce(counts):
        dist.all_reduce(counts)
        return counts

    batches = [{"image": images[mine][i : i + 2], "mask": masks[mine][i : i + 2]} for i in range(0, 3, 2)]
    batches = [batch for batch in batches if len(batch["image"])]
    metrics = evaluate_miou(network, batches, num_classes=3, all_reduce=all_reduce)
    results.put((rank, metrics))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_count_each_image_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=work, args=(r, tmp_path / "meeting", results), daemon=True) for r in range(2)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=90) for _ in workers)
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    images, masks = samples()
    alone = evaluate_miou(network, [{"image": images, "mask": masks}], num_classes=3)
    assert found[0] == found[1] == alone
    assert sum(alone.support) == masks.numel()
