"""A control panel for a notebook: clouds in a table, buttons that turn them, the idle rule, and how long things took.

It is made for a lab of this process or for a controller elsewhere. Imports ipywidgets when a panel is made; may import
everything below lab.
"""

from emlab.panel.board import panel
from emlab.panel.source import Elsewhere, Here, Source

__all__ = ["Elsewhere", "Here", "Source", "panel"]
