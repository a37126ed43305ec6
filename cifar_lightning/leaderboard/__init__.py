"""Which run is best, and what it has that the others have not; needs neither PyTorch nor Lightning."""
