"""A retriever made of others, which it keeps and is saved with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from recsys.retrievers.base import Retriever


class Composite(Retriever):
    """Holds fitted retrievers over the catalogue of its own.

    Attributes:
        members: the retrievers.
    """

    members: list[Retriever]

    def facts(self) -> dict[str, Any]:
        """Those of its own, and all that its members are made of."""
        own = {name: value for name, value in super().facts().items() if name != "members"}
        return {**own, "members": [member.about() for member in self.members]}

    def state(self) -> dict[str, Tensor]:
        """The catalogue's codes and the members' tensors."""
        of_members = {
            f"members.{number}.{name}": value
            for number, member in enumerate(self.members)
            for name, value in member.state().items()
        }
        return {**super().state(), **of_members}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave."""
        own = {name: value for name, value in state.items() if not name.startswith("members.")}
        super().restore(own, {name: value for name, value in facts.items() if name != "members"})
        self.members = []
        for number, about in enumerate(facts["members"]):
            prefix = f"members.{number}."
            of_member = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            self.members.append(Retriever.rebuilt(about, of_member, f"member {number}"))
