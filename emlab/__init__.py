"""emlab: a laboratory for individual user clouds.

What it offers stands, sorted, in `__init__.pyi`; each name is loaded from its module when it is first used, so that
`import emlab`, and the program in a cloud, stay small.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
