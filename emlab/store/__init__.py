"""Where one person's entries are kept: e-mission's own collections in a mongod, or this process's memory."""

from emlab.store.base import Store
from emlab.store.memory import MemoryStore
from emlab.store.mongo import MongoStore

__all__ = ["MemoryStore", "MongoStore", "Store"]
