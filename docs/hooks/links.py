"""Hooks of MkDocs: links that leave the folder of the documentation, and modules without a reference page."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.gritrec")
ROOT = Path(__file__).parents[2]
SOURCES = {"semantic_ids": ROOT / "tokenizers", "recsys": ROOT, "pipelines": ROOT}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links to files outside the documentation pointing into the repository.

    A page says `[recipes.py](../tokenizers/semantic_ids/recipes.py)`, which works on a code host and in an
    editor. The site has no such file, so the link leads to the repository's page for it there.
    """
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent

    def rewritten(link: re.Match[str]) -> str:
        target, anchor = link["target"], link["anchor"] or ""
        path = Path(os.path.normpath(folder / target))
        if path.is_relative_to(docs):
            return link[0]
        if not path.exists():
            LOG.warning("%s links to %s, which does not exist", page.file.src_uri, target)
        kind = "tree" if path.is_dir() else "blob"
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{path.relative_to(ROOT).as_posix()}{anchor})"

    return re.sub(r"\]\((?P<target>\.\.?/[^)#\s]*)(?P<anchor>#[^)\s]*)?\)", rewritten, markdown)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Warn of modules that no page of the reference shows, and of pages that show what is not a module."""
    pages = "\n".join(file.content_string for file in files.documentation_pages())
    shown = set(re.findall(r"^::: ([\w.]+)", pages, flags=re.MULTILINE))
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for package, root in SOURCES.items()
        for path in (root / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    for module in sorted(modules - shown):
        LOG.warning('no page shows %s: add "::: %s" to a page in docs/reference', module, module)
    for module in sorted(shown - modules):
        LOG.warning('there is no module %s: remove "::: %s" from docs/reference', module, module)
    return files
