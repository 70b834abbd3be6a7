"""Many scans on this machine, one after another; one that fails never stops the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from balaitous.cohort.scans import Scan
from balaitous.errors import BalaitousError
from balaitous.severity.pipeline import Balaitous, Prediction


def predict_scans(
    model: Balaitous, scans: Iterable[Scan], series: str | None = None
) -> Iterator[tuple[Scan, Prediction | Exception]]:
    """Yield each scan with its prediction, or with the error that stopped it.

    Errors of data (`BalaitousError`), of a row's age or sex (ValueError) and of memory belong to the scan. Anything else
    is a fault of ours and goes up.
    """
    for scan in scans:
        try:
            yield scan, model.predict(scan.path, age=scan.age, sex=scan.sex, series=series)
        except (BalaitousError, ValueError, MemoryError) as error:
            yield scan, error if str(error) else MemoryError("out of memory. Free some, or use a smaller scan.")
