"""Image-mask pairs made by a trained model: options, engine, sources, output."""
