"""What stands for a number in the folders and options of a row, and the weights that need none. No heavy import here:
commands refuse a row that lacks one at once."""

SEED = "{seed}"  # in a folder or an option: the number of the nested split, or of the training
COUNT = "{count}"  # in an option, such as the weights: how many real defects of each type there are, or all
SHIPPED = "mini"  # weights that have seen no real part
