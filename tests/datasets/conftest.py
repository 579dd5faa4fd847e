"""What several test files of the data sets need."""

from __future__ import annotations
