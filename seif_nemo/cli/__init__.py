"""Entry points: compose the configuration, build, run."""
