"""survpack: hybrid deep survival models on medical images, in a study that can be believed."""

__version__ = "0.1.0"
