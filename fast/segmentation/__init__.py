"""Small segmentation networks, trained on image-mask pairs: do synthetic pairs help?"""

from fast.segmentation.networks import SEGMENTERS, build

__all__ = ["SEGMENTERS", "build"]
