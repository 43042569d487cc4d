"""The documentation site: `python -m sphinx -W --keep-going docs site`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

project = "FLAN-JAX"
author = "the FLAN-JAX authors"
copyright = author
version = release = installed("flan-jax")

sys.path.insert(0, str(Path(__file__).parent))

extensions = ["commands", "myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

# Anchors of headings as GitHub makes them, so that one link holds in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block", "colon_fence", "fieldlist"]
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "FLAN-JAX"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
