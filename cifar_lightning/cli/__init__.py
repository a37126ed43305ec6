"""The command line: what was typed and what config files say, checked and made into a run."""
