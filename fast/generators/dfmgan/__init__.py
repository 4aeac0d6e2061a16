"""DFMGAN (Duan et al. 2023): a StyleGAN2 of the normals, and residual features inside a mask that it draws itself."""

from fast.generators.dfmgan.generator import DFMGANGenerator
from fast.generators.dfmgan.module import DFMGAN

__all__ = ["DFMGAN", "DFMGANGenerator"]
