"""What e-mission's own clients ask of a cloud, answered as its server does: profile, uploads, entries, trips, metrics.

`actor` has a method for each route; the other modules decide, and know no database.
"""

from emlab.emission.actor import Emission

__all__ = ["Emission"]
