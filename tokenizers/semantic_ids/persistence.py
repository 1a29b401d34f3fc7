"""How anything fitted is kept on disk: JSON for what was chosen, safetensors for what was learned."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semantic_ids.randomness import seeded


class Persistent:
    """An object that is rebuilt from constructor arguments and tensors.

    The convention is scikit-learn's: every constructor argument is kept in an attribute of its
    own name and is a plain JSON value (or a dataclass of such). What fitting learns is kept in
    attributes that are tensors, modules or plain JSON values. Then :meth:`save` and :meth:`load`
    work unwritten, but for :meth:`build` where there are modules. An attribute that is none of
    these is an error in :meth:`save`. Whatever has a name that begins with ``_`` is scratch and not kept.
    """

    def params(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON values.

        Raises:
            ValueError: an argument is not kept in an attribute of its name, or is no JSON value.
        """
        names = inspect.signature(type(self)).parameters
        for name in names:
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} does not keep its argument {name!r}: set self.{name} in __init__"
                )
        values = {name: getattr(self, name) for name in names}
        params = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in values.items()}  # type: ignore[arg-type]
        self._check_survival(params)
        return params

    def facts(self) -> dict[str, Any]:
        """What fitting found out that is neither tensor nor module, as JSON values."""
        params = self.params()
        return {
            name: value
            for name, value in self._kept().items()
            if not (name in params or isinstance(value, Tensor | nn.Module))
        }

    def build(self, facts: Mapping[str, Any]) -> None:
        """Make the modules that weights go into, from :meth:`facts`; there are none by default."""

    def state(self) -> dict[str, Tensor]:
        """What fitting learned: every attribute that is a tensor, and the weights of every module."""
        state = {name: value for name, value in self._kept().items() if isinstance(value, Tensor)}
        for name, module in self._modules():
            state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return state

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave; modules are left in eval mode.

        Raises:
            ValueError: there are weights of a module that neither the constructor nor :meth:`build` makes.
        """
        for name, value in facts.items():
            setattr(self, name, value)
        with seeded(0):
            self.build(facts)
        left = dict(state)
        for name, module in self._modules():
            module.load_state_dict({key: left.pop(f"{name}.{key}") for key in module.state_dict()})
            module.eval()
        for name, value in left.items():
            if "." in name:
                raise ValueError(f"{type(self).__name__} has no module for the weights {name}: write build()")
            setattr(self, name, value)

    def about(self) -> dict[str, Any]:
        """All but the tensors of :meth:`state`, as JSON values: class, ``params`` and ``facts``.

        Raises:
            ValueError: an attribute would not survive; the message names it.
        """
        params, facts = self.params(), self.facts()
        self._check_survival(facts)
        name = f"{type(self).__module__}:{type(self).__qualname__}"
        return {"class": name, "params": params, "facts": facts}

    @classmethod
    def rebuilt(cls, about: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> Self:
        """From what :meth:`about` and :meth:`state` gave, of this class or one derived from it.

        Raises:
            ValueError: they are of something else; the message names ``source``.
        """
        module, _, name = about["class"].partition(":")
        found = getattr(importlib.import_module(module), name)
        if not (isinstance(found, type) and issubclass(found, cls)):
            raise ValueError(f"{source} holds a {about['class']}, which is no {cls.__name__}")
        fitted = found(**about["params"])
        fitted.restore(state, about["facts"])
        return fitted

    def _modules(self) -> list[tuple[str, nn.Module]]:
        return [(name, value) for name, value in self._kept().items() if isinstance(value, nn.Module)]

    def _kept(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _check_survival(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if not _survives_json(value):
                raise ValueError(
                    f"{type(self).__name__}.{name}, a {type(value).__name__}, would not survive saving: make "
                    "it a tensor, a module or plain JSON (lists, not tuples; keys that are strings), or "
                    "begin its name with _ if nothing is lost without it"
                )

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors``, then ``model.json``, into ``folder``; neither is ever half there.

        Raises:
            ValueError: an attribute would not survive; the message names it. Nothing is written.
        """
        about = self.about()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "partial"
        # Cloned, for the format refuses tensors that share memory.
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state().items()}
        save_file(state, partial)
        partial.rename(folder / "model.safetensors")
        partial.write_text(json.dumps(about, indent=2) + "\n")
        partial.rename(folder / "model.json")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote, by this class or one derived from it.

        Raises:
            ValueError: the folder holds something else.
        """
        folder = Path(folder)
        about = json.loads((folder / "model.json").read_text())
        return cls.rebuilt(about, load_file(folder / "model.safetensors"), str(folder / "model.json"))


def _survives_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
