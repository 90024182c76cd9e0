"""Portico: one front for open-weight models. The map of the code is docs/house.md."""

__version__ = "0.1.0.dev0"
