"""Photo-like pictures of surfaces and their defects, drawn by the project itself."""

from fast.data.drawn.dataset import draw_dataset
from fast.data.drawn.defects import DEFECTS, defects_of, draw_defect
from fast.data.drawn.surfaces import MATERIALS, draw_surface

__all__ = ["DEFECTS", "MATERIALS", "defects_of", "draw_dataset", "draw_defect", "draw_surface"]
