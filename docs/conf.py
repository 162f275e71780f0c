"""The documentation site: `make docs` writes it to docs/_site."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import made  # noqa: E402

made.write(HERE / "_made")

project = "crossclass"
author = "The crossclass authors"
version = release = installed("crossclass")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_site", "_made"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 2
html_theme = "furo"
html_title = "crossclass"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
