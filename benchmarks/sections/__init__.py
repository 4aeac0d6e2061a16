"""The tables: which cases each needs, and its text. Every section has `jobs` by label and `text` from their results."""

from benchmarks.sections import options, pairs, profile, training, unet, windows
from benchmarks.sections.section import Section

SECTIONS: dict[str, Section] = {
    "unet": Section(unet.jobs, unet.text),
    "pairs": Section(pairs.jobs, pairs.text),
    "windows": Section(windows.jobs, windows.text),
    "options": Section(options.jobs, options.text),
    "training": Section(training.jobs, training.text),
    "profile": Section(profile.jobs, profile.text),
}
