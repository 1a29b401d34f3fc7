"""Save fitted objects: constructor arguments as JSON, learned tensors as safetensors."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semantic_ids.digest import content_digest
from semantic_ids.files import atomic_write
from semantic_ids.plugins import saved_class
from semantic_ids.randomness import float32_numbers, seeded


class Persistent:
    """An object that can be rebuilt from constructor arguments and tensors.

    The convention is scikit-learn's: every constructor argument is kept in an attribute of its own name and
    is a plain JSON value (or a dataclass of such values). What fitting learns is kept in attributes that are
    tensors, modules or plain JSON values. Then :meth:`save` and :meth:`load` work without further code;
    only a class with modules writes :meth:`build`. An attribute of any other kind is an error in
    :meth:`save`. Attributes whose names begin with ``_`` are scratch and are not saved.

    Attributes:
        moved: Former to present path of classes (``module:Class``), so that models saved by earlier
            versions still load.
    """

    moved: ClassVar[Mapping[str, str]] = {}

    def params(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values.

        Raises:
            ValueError: If an argument is not kept in an attribute of its name, or is no JSON value.
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

    @classmethod
    def upgraded(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return constructor arguments that an earlier version saved, as the present constructor wants them.

        A class that renames or regroups its arguments overrides this.
        """
        return params

    def facts(self) -> dict[str, Any]:
        """Return what fitting found out that is neither a tensor nor a module, as JSON values."""
        params = self.params()
        return {
            name: value
            for name, value in self._saved().items()
            if not (name in params or isinstance(value, Tensor | nn.Module))
        }

    def build(self, facts: Mapping[str, Any]) -> None:
        """Create the modules that weights are loaded into; by default there are none.

        Args:
            facts: What :meth:`facts` returned when the object was saved.
        """

    def state(self) -> dict[str, Tensor]:
        """Return what fitting learned: every attribute that is a tensor, and the weights of every module."""
        state = {name: value for name, value in self._saved().items() if isinstance(value, Tensor)}
        for name, module in self._modules():
            state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return state

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Set what :meth:`state` and :meth:`facts` returned; modules end in eval mode.

        Raises:
            ValueError: If there are weights of a module that neither the constructor nor :meth:`build`
                creates.
        """
        for name, value in facts.items():
            setattr(self, name, value)
        with seeded(0), float32_numbers():
            self.build(facts)
        left = dict(state)
        for name, module in self._modules():
            module.load_state_dict({key: left.pop(f"{name}.{key}") for key in module.state_dict()})
            module.eval()
        for name, value in left.items():
            if "." in name:
                raise ValueError(f"{type(self).__name__} has no module for the weights {name}: write build()")
            setattr(self, name, value)

    def description(self) -> dict[str, Any]:
        """Return all but the tensors, as JSON values: ``class``, ``params`` and ``facts``.

        Raises:
            ValueError: If an attribute cannot be saved. The message names it.
        """
        params, facts = self.params(), self.facts()
        self._check_survival(facts)
        name = f"{type(self).__module__}:{type(self).__qualname__}"
        return {"class": name, "params": params, "facts": facts}

    @classmethod
    def rebuilt(cls, description: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> Self:
        """Return the object that :meth:`description` and :meth:`state` were taken from.

        Args:
            description: What :meth:`description` returned, for this class or a subclass of it.
            state: What :meth:`state` returned.
            source: Where both come from, for error messages.

        Raises:
            ValueError: If they belong to a class that is no subclass of this one, if its module is neither
                imported nor a known one (see :func:`~semantic_ids.plugins.saved_class`), or if arguments or
                weights do not fit the class.
        """
        path = str(description["class"])
        found = saved_class(cls.moved.get(path, path), cls, source)
        try:
            fitted = found(**found.upgraded(description["params"]))
            fitted.restore(state, description["facts"])
        except (TypeError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{source} holds a {path} that the present {found.__name__} cannot take "
                f"({type(error).__name__}: {error}); it is damaged or of another version: fit it again"
            ) from error
        return fitted

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors``, then ``model.json``, into ``folder``; neither is ever half written.

        ``model.json`` holds a digest of everything in both files.

        Raises:
            ValueError: If an attribute cannot be saved. The message names it, and nothing is written.
        """
        description = self.description()
        # Cloned, because the format refuses tensors that share memory.
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state().items()}
        with atomic_write(Path(folder, "model.safetensors")) as partial:
            save_file(state, partial)
        with atomic_write(Path(folder, "model.json")) as partial:
            sealed = {**description, "digest": content_digest(state, description)}
            partial.write_text(json.dumps(sealed, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return what :meth:`save` of this class or of a subclass wrote into ``folder``.

        Raises:
            ValueError: If the folder holds an object of another class, or if a file is damaged. The message
                names it. Models of version 0.1.0 have no digest, so damage may go unnoticed there.
        """
        path = Path(folder, "model.json")
        weights = path.with_name("model.safetensors")
        description = read_description(path, ("class", "params", "facts"))
        digest = description.pop("digest", None)
        try:
            state = load_file(weights)
        except SafetensorError as error:
            raise ValueError(f"{weights} is damaged ({error}); fit and save it again") from error
        if digest is not None and digest != content_digest(state, description):
            raise ValueError(
                f"{weights} or {path.name} beside it is damaged: the content does not have the digest that "
                "it was saved with; fit and save it again"
            )
        return cls.rebuilt(description, state, str(path))

    def _modules(self) -> list[tuple[str, nn.Module]]:
        """Return the name and value of every attribute that is a module."""
        return [(name, value) for name, value in self._saved().items() if isinstance(value, nn.Module)]

    def _saved(self) -> dict[str, Any]:
        """Return the attributes that are saved: all whose names do not begin with ``_``."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def _check_survival(self, values: Mapping[str, Any]) -> None:
        """Refuse values that would not come back from JSON as they were."""
        for name, value in values.items():
            if not _survives_json(value):
                raise ValueError(
                    f"{type(self).__name__}.{name}, a {type(value).__name__}, would not survive saving: make "
                    "it a tensor, a module or plain JSON (lists, not tuples; keys that are strings), or "
                    "begin its name with _ if nothing is lost without it"
                )


def read_description(path: Path, fields: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """Read a JSON file that describes tensors beside it.

    Args:
        path: The file.
        fields: Names that it must have.
        optional: Names that it may have; ``digest`` is always one of them.

    Raises:
        ValueError: If it is no JSON mapping with these names. The message names the file.
    """
    try:
        description: Any = json.loads(path.read_bytes())
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(f"{path} is damaged ({error}); save it again") from error
    names = set(description) if isinstance(description, dict) else set()
    if not set(fields) <= names <= {*fields, *optional, "digest"}:
        raise ValueError(f"{path} is damaged: it must have the fields {', '.join(fields)}; save it again")
    return dict(description)


def _survives_json(value: Any) -> bool:
    """Return whether a value comes back from JSON as it was."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
