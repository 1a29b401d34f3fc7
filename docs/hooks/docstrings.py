"""An extension of griffe that prepares docstrings for Markdown pages."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Extension, Function, GriffeError, Object
from latex2mathml.converter import convert

_ROLE = re.compile(
    r":(?:class|func|meth|mod|data|attr|obj|exc):`(?:(?P<text>[^`<]+?) *<)?(?P<target>[^`>]+)>?`"
)
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_MATH_BLOCK = re.compile(r"^( *)\.\. math:: *(.*(?:\n(?:\1 +.*| *(?=\n\1 )))*)", flags=re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)Example:$", flags=re.MULTILINE)
_SHARED_ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)", flags=re.MULTILINE)


class Docstrings(Extension):
    """Make links of roles such as `` :func:`holm` ``, MathML of formulas, and an entry for every argument."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is None:
            return
        text = obj.docstring.value
        text = _EXAMPLE.sub(r"\1Examples:", text)  # the word that griffe knows
        text = _SHARED_ENTRY.sub(lambda entry: _entries(entry, obj), text)
        text = _MATH_BLOCK.sub(lambda block: f"{block[1]}{_mathml(block[2], 'block')}\n", text)
        text = _INLINE_MATH.sub(lambda inline: f"<span>{_mathml(inline[1], 'inline')}</span>", text)
        obj.docstring.value = _ROLE.sub(lambda role: _link(role, obj), text)


def _entries(entry: re.Match[str], obj: Object) -> str:
    """Return `a, b: text` as an entry for each if all are arguments or attributes, so that they get types."""
    known = set(obj.members)
    if isinstance(obj, (Class, Function)):
        known.update(parameter.name for parameter in obj.parameters)
    names = entry[2].split(", ")
    if not known.issuperset(names):
        return entry[0]
    return "\n".join(f"{entry[1]}{name}{entry[3]}" for name in names)


def _mathml(formula: str, display: str) -> str:
    """Return a formula of LaTeX as MathML in one line, which browsers show without a script."""
    return convert(" ".join(formula.split()), display=display)


def _link(role: re.Match[str], obj: Object) -> str:
    """Return a link that is plain code where its target has no page, as Python's own classes have none."""
    target = role["target"].lstrip("~")
    text = role["text"] or (target.rpartition(".")[2] if role["target"].startswith("~") else target)
    return f'<autoref optional identifier="{_full_name(target, obj)}">`{text}`</autoref>'


def _full_name(target: str, obj: Object) -> str:
    """Return the dotted path of a name, looked up where the docstring is, in its class first."""
    scope = obj.parent if isinstance(obj, Function) and obj.parent else obj
    try:
        if scope.is_class and target in scope.all_members:
            return str(scope.all_members[target].canonical_path)
        return str(scope.resolve(target))
    except GriffeError:  # a full name already, or one that only Python knows
        return target
