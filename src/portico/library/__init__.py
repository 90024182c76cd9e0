"""Models on disk and on the hub: what is here, what it is, and how it comes and goes.

`Library` is the way in. Below it: names and choices (catalogue, choice), files that are read (gguf, safetensors,
checkpoint, facts, ollama_store), bytes that are fetched (hub, transfer, hubcache, blobs), and what is kept
(manifests, stock, ledger).
"""

from portico.library.hubsettings import HubSettings
from portico.library.library import Library
from portico.library.model import ModelFile, bundled_folder
from portico.library.progress import Progress
from portico.library.show import model_info, parameter_size
from portico.library.stock import Unfinished

__all__ = [
    "HubSettings",
    "Library",
    "ModelFile",
    "Progress",
    "Unfinished",
    "bundled_folder",
    "model_info",
    "parameter_size",
]
