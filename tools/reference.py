"""Runs in: the developer's machine, inside mkdocs. Makes the reference pages from the public names.

`bunri/_public.py` is the list of what is public. Each name gets an entry, on the page of the part it comes from;
so a new public name is in the reference without anybody writing it there.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

log = get_plugin_logger(__name__)
SOURCE = Path(__file__).resolve().parent.parent / "src"
LOADER = griffe.GriffeLoader(search_paths=[SOURCE], allow_inspection=False)
PUBLIC = ("bunri", "bunri.seccomp", "bunri.filters", "bunri.testing")

TITLES = {
    "calls": "Calls",
    "compartment": "Compartments",
    "service": "Services",
    "handles": "Handles",
    "errors": "Errors",
    "policy": "Policy and grants",
    "plan": "Plans and reports",
    "confine": "Confinement",
    "process": "Processes",
    "wire": "The wire",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = reference_pages()
    for path, text in pages.items():
        files.append(File.generated(config, f"reference/{path}", content=text))
    return files


def reference_pages() -> dict[str, str]:
    """File name -> text. Only modules that exist have a page."""
    pages: dict[str, str] = {}
    lines = ["# Reference", "", "Every public name, from its docstring.", ""]
    for part, names in sorted(parts_of(public_names("bunri._public")).items(), key=lambda item: order(item[0])):
        title = TITLES.get(part, part)
        pages[f"{part}.md"] = page(title, [f"bunri.{name}" for name in names])
        lines.append(f"- [{title}]({part}.md): " + ", ".join(f"`{name}`" for name in names))
    for module in PUBLIC[1:]:
        members = list(public_names(module))
        if members:
            name = module.removeprefix("bunri.")
            pages[f"module-{name}.md"] = page(module, [f"{module}.{member}" for member in members])
            lines.append(f"- [{module}](module-{name}.md): " + ", ".join(f"`{member}`" for member in members))
    pages["index.md"] = "\n".join(lines) + "\n"
    return pages


def order(part: str) -> int:
    return list(TITLES).index(part) if part in TITLES else len(TITLES)


def page(title: str, names: list[str]) -> str:
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in names)


def public_names(module: str) -> dict[str, str]:
    """The names in `__all__` -> the module each is defined in. The source is read, not imported."""
    try:
        exports = LOADER.load(module)
    except (ImportError, KeyError):
        log.warning("there is no %s", module)
        return {}
    names = sorted(name for name in map(str, exports.exports or ()) if not name.startswith("__"))
    origins: dict[str, str] = {}
    for name in names:
        try:
            member = exports[name]
            target = member.final_target if member.is_alias else member
        except (KeyError, griffe.AliasResolutionError):
            log.warning("%s.%s is not there", module, name)
        else:
            origins[name] = target.canonical_path if target.is_module else target.module.canonical_path
    return origins


def parts_of(origins: dict[str, str]) -> dict[str, list[str]]:
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for name, origin in origins.items():
        parts[(origin.removeprefix("bunri").strip(".").split(".") or [""])[0] or name].append(name)
    return parts
