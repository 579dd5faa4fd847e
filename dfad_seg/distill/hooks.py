"""What a training loop tells the outside world."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Evaluate = Callable[[nn.Module], dict[str, float]]
_nothing: Callable[..., None] = lambda *_: None  # noqa: E731


@dataclass
class Hooks:
    """Callbacks of a loop; each runs after an iteration whose 1-based number is a multiple of its interval.

    `evaluate`, `save` and `preview` also run after the last iteration. An interval of 0 means only then.
    """

    log: Callable[[int, dict[str, float]], None] = _nothing
    """(iteration, scalars): training metrics since the last call, or an evaluation's."""
    evaluate: Evaluate | None = None
    """(network) -> scalars such as `val/mIoU`. The loops never see what it evaluates on."""
    save: Callable[[int, dict[str, Any]], None] = _nothing
    """(iteration, state): a resumable state of tensors and plain Python."""
    event: Callable[[int, dict[str, Any]], None] = _nothing
    """(iteration, record): something went wrong: `event` (what), `cause` and `found_at` (the iteration)."""
    preview: Callable[[int, Tensor, Tensor, Tensor], None] = _nothing
    """(iteration, images, teacher's labels, student's labels) of some generated images."""
    advance: Callable[[int], None] = _nothing
    """(iteration): after every iteration."""
    stop_requested: Callable[[], int] = lambda: False
    """Asked after every iteration; True, or a signal's number, saves the state and raises `Interrupted`."""
    state: Callable[[], dict[str, Any]] = dict
    """Set by the loop: its resumable state of now, for who wants it in `log`, before an evaluation."""
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 0
    preview_every: int = 0


def is_due(iteration: int, every: int, last: int) -> bool:
    """Whether something with interval `every` is due after `iteration` of `last`."""
    return iteration == last or (every > 0 and iteration % every == 0)
