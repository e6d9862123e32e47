"""Make Transformers' Auto classes know this package's models, without importing Transformers.

Importing Transformers and PyTorch takes seconds, which `data2vec2 --help` must not. So where Transformers is already
imported, the models are registered at once; otherwise a finder on `sys.meta_path` waits for its import. Registering is
importing `data2vec2.modalities.transformers`, nothing else: that can happen twice or in the middle of its own import.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_models() -> None:
    """Register now if Transformers is imported, otherwise right after it is."""
    if sys.modules.get("transformers") is not None:
        _register()
    elif not any(isinstance(finder, _AfterTransformers) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTransformers())


def _register() -> None:
    """Register; a failure (PyTorch missing, say) is told but does not spoil the import that brought us here."""
    try:
        importlib.import_module("data2vec2.modalities.transformers")
    except Exception as error:  # whatever it is, it must not break `import transformers`
        warnings.warn(f"Transformers' Auto classes will not know data2vec2's models: {error}", stacklevel=2)


class _AfterTransformers(MetaPathFinder):
    """Lets the other finders find `transformers`, and registers once it has been executed.

    While it is executed Transformers replaces itself in `sys.modules` by a lazy module, and none of its parts may be
    imported before it is done; therefore the loader's `exec_module` is wrapped for this one call. If Transformers is
    missing or its import fails, that takes its usual course and the finder stays for the next attempt.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find `transformers`, with a loader that also registers; nothing for other modules."""
        if fullname != "transformers":
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or (loader := spec.loader) is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the class's own is back
            loader.exec_module(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
