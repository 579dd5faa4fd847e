"""What each of two processes does in test_distil.py: the folder to write to is the argument."""

import sys

import torch
import toys
from lightning_fabric import Fabric

from dfad_seg.distill import Game, Hooks, distil, student_step
from dfad_seg.objectives.discrepancy import mae

torch.set_num_threads(1)
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
teacher, generator = toys.teacher(), toys.generator()
noise, sample = [], generator.sample
generator.sample = lambda *a: noise.append(sample(*a)) or noise[-1]
saved = {}
game = Game.of(
    iterations=3,
    student_steps=2,
    batch_size=4,
    image_size=toys.SIZE,
    student_optimizer={"type": "sgd", "lr": 0.05},
    interpolation={},
    activation_boundary=0.1,
    ema_decay=0.5,
    replay={"size": 8, "steps": 2},
    logit_adjustment=0.5,
)


def save(step, state):
    if fabric.global_rank == 0 and step == 1:
        torch.save(state, f"{sys.argv[1]}/state.pt")
    saved.update(state["networks"])


distil(teacher, toys.segmentor(2), generator, game, fabric=fabric, hooks=Hooks(save=save, save_every=1))
fabric.barrier()
resumed, state = {}, torch.load(f"{sys.argv[1]}/state.pt", weights_only=True)
hooks = Hooks(save=lambda step, state: resumed.update(state["networks"]))
distil(teacher, toys.segmentor(2), toys.generator(), game, fabric=fabric, state=state, hooks=hooks)

# One step of the student, by two ranks on halves of a batch and by one process on the whole.
whole = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
results = {}
for name, images in (("two", whole[fabric.global_rank * 4 :][:4]), ("one", whole)):
    module = toys.segmentor(5, norm=False)
    wrapped, optimizer = module, torch.optim.SGD(module.parameters(), lr=0.1)
    if name == "two":
        wrapped, optimizer = fabric.setup(module, optimizer)
    backward = fabric.backward if name == "two" else torch.Tensor.backward
    for _ in range(2):
        student_step(
            student=wrapped, teacher=teacher, images=images, optimizer=optimizer, loss_fn=mae, backward=backward
        )
    results[name] = {k: v.clone() for k, v in module.state_dict().items()}
torch.save(
    {**saved, "resumed": resumed, "noise": torch.stack(noise[:9]), **results},
    f"{sys.argv[1]}/rank{fabric.global_rank}.pt",
)
