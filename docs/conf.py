"""The documentation site: `python -m sphinx -W --keep-going docs site`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "FLAN-JAX"
author = "the FLAN-JAX authors"
copyright = author
version = release = installed("flan-jax")

extensions = ["commands", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
smartquotes_action = "D"  # dashes alone: values are written in straight quotes

# Anchors of headings as GitHub makes them, so that one link holds in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block", "colon_fence"]

# Docstrings have single backticks around code, as Markdown has. TensorFlow takes seven seconds to import, SeqIO imports
# it, and of our SeqIO tasks the page shows two names.
default_role = "code"
autodoc_mock_imports = ["tensorflow", "tensorflow_datasets", "seqio"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = "FLAN-JAX"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
