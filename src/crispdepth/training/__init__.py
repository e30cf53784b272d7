"""Training: recipes, and the only room that knows Lightning."""

from importlib.util import find_spec

from crispdepth.types import MissingPackage

if not (find_spec("lightning") and find_spec("transformers")):  # told here, before a room of it meets one of the two
    raise MissingPackage("training needs Lightning and Transformers: pip install 'crispdepth[train]'")
