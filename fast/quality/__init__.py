"""How good synthesized pairs are, judged without a person: by what a classifier of defect types sees in them."""
