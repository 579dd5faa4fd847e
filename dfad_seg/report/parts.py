"""What a report consists of, before it is HTML or Markdown: plain text, nothing of it escaped yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows of text under headers; the first column names the row."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[float | None] = ()
    """One per row, in [0, 1]: drawn behind the last column; none by default."""
    note: str = ""
    words: int = 1
    """So many columns from the left hold words, the others numbers."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: its steps ascending, its values finite."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Lines over the iterations."""

    title: str
    series: Sequence[Series]
    smooth: bool = False
    """Draw a running mean over the pale raw line, for losses that jump."""
    log: bool = False
    """A logarithmic scale, for positive values only."""
    floor: float | None = None
    """The lowest value of the axis; none: fitted to the values."""
    ceiling: float | None = None


@dataclass(frozen=True)
class Picture:
    """A picture file of the run directory."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Content:
    """All that a report says."""

    title: str
    finished: bool
    status: str
    """How far the run is, in one sentence."""
    headline: Sequence[tuple[str, str]] = ()
    """The few numbers that one looks for first: (what, value)."""
    warnings: Sequence[str] = ()
    """What looks unhealthy, in plain words; empty where nothing does."""
    healthy: str = ""
    """What was looked for and not found; empty where nothing could be looked for."""
    networks: Table | None = None
    classes: Table | None = None
    charts: Sequence[Chart] = ()
    generated: Sequence[Picture] = ()
    examples: Sequence[Picture] = ()
    data_free: bool | None = None
    """Whether the records show that no real image was read for training; None where there is no record."""
    claim: str = ""
    """The same in words, with what it rests on."""
    provenance: Sequence[tuple[str, str]] = ()
    config: str = ""
    """`config.yaml` as it stands."""
    missing: Sequence[str] = field(default_factory=tuple)
    """Files of the run that could not be read, with the reason."""
