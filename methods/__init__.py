"""The debiasing methods, one file each; what they share is in ``losses``."""
