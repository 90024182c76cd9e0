"""The name by which Amplifier finds the provider where a `source:` is given: a folder or a repository instead of an installed
package. All of it is portico.amplifier."""

from portico.amplifier import __amplifier_module_type__, mount

__all__ = ["__amplifier_module_type__", "mount"]
