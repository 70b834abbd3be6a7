"""Many scans on this machine, one after another; one that fails never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from balaitous.cohort.scans import Scan
from balaitous.severity.pipeline import Balaitous, Prediction

log = logging.getLogger(__name__)


def predict_scans(
    model: Balaitous, scans: Iterable[Scan], series: str | None = None
) -> Iterator[tuple[Scan, Prediction | Exception]]:
    """Yield each scan with its prediction, or with the error that stopped it."""
    for scan in scans:
        try:
            yield scan, model.predict(scan.path, age=scan.age, sex=scan.sex, series=series)
        except Exception as error:
            log.debug("%s failed", scan.path, exc_info=True)
            yield scan, error
