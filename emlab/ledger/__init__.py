"""The ledger: what has been spent, kept inside the cloud, debited before data is read."""

from emlab.ledger.base import Balance, Denial, Ledger, Note, Row, merged
from emlab.ledger.memory import MemoryLedger
from emlab.ledger.mongo import DATABASE, MongoLedger

__all__ = ["DATABASE", "Balance", "Denial", "Ledger", "MemoryLedger", "MongoLedger", "Note", "Row", "merged"]
