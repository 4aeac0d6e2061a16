"""Image-mask pairs made by a trained model. From what is asked for to what lies on the disk:

- `options` declares all options, `recipe` decides how given weights sample.
- `sources` finds normal images and masks, `selection` which meet in a pair, `defect_types` reads names of types.
- `pair` is one pair, planned and made; `maker` what makes pairs, and the masks and drafts that it is handed.
- `prepared` is a model on its device, `denoiser` its U-Net as samplers call it, `engine` fills windows with both.
- `batches` cuts pairs into windows and joins windows of one size, `synthesizer` makes pairs of them.
- `counterfeit`, `detail` and `honest` change what is made: normal content in masks, lost grain, masks of what changed.
- `output` is a folder of pairs, `shards` tar files of them; `records` reads the records of both.
"""
