"""What keeps a file from being written."""


class ParityError(Exception):
    """The file does not answer as the model does, or the smaller net is not as good; the message says where."""
