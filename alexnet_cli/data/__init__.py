"""From pictures on disk to batches on the device. Does not depend on the network."""
