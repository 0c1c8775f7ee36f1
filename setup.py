"""The one build step that pyproject.toml can't say: a wheel carries the bibliography as index.json.

Works for `pip install .`, `pip install git+...`, `python -m build`. The index goes to the build folder, never into
the checkout, and a bibliography with problems stops the build and lists them.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithIndex(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # an editable install reads the checkout's bib folder
            return
        sys.path.insert(0, str(ROOT))
        from dynnotes.knowledge.index import bundle

        bundle(ROOT / "bib", Path(self.build_lib) / "dynnotes" / "knowledge" / "index.json")


setup(cmdclass={"build_py": BuildWithIndex})
