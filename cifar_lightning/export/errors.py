"""What keeps a file from being written."""


class ParityError(Exception):
    """The exported file does not answer as the model does; the message names the stage that differs."""
