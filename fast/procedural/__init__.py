"""Photo-like pictures of surfaces and their defects, drawn by the project itself."""

from fast.procedural.dataset import draw_dataset
from fast.procedural.defects import DEFECTS, defects_of
from fast.procedural.drawing import draw_defect
from fast.procedural.surfaces import MATERIALS, draw_surface

__all__ = ["DEFECTS", "MATERIALS", "defects_of", "draw_dataset", "draw_defect", "draw_surface"]
