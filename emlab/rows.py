"""Rows of what a controller tells: a list, and a table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    import pandas as pd

S = TypeVar("S", bound=msgspec.Struct)


class Rows(list[S]):
    """A list of structs of one kind; `.frame()` makes a DataFrame of it."""

    def frame(self) -> pd.DataFrame:
        """One row each, a column for each attribute; columns that end in `_ts` are times (UTC)."""
        import pandas as pd

        frame = pd.DataFrame([msgspec.structs.asdict(row) for row in self])
        times = [name for name in frame.columns if name.split("_")[-1] == "ts"]
        return frame.assign(**{name: pd.to_datetime(frame[name], unit="s", utc=True) for name in times})

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False, border=0, na_rep="–"))
