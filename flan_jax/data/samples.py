"""Where the bundled samples are: a few records of each dataset, as JSONL in TFDS's field names. No TensorFlow."""

from __future__ import annotations

from pathlib import Path

import flan_jax.tasks
from flan_jax import catalog
from flan_jax.values import OUR_DATA

# All that --data may be beside a folder: SAMPLES stands for their folder, TFDS for that of TFDS, and for downloads.
SAMPLES, TFDS = OUR_DATA


def samples_folder(record: catalog.Dataset | None = None) -> Path:
    """The folder of the bundled samples, or of the samples beside the module of a user's own dataset."""
    if record is not None and (own := catalog.own_samples(record.name)) is not None:
        return own
    return Path(next(iter(flan_jax.tasks.__path__))) / SAMPLES
