"""Pictures on disk to batches on the device. Knows no network."""
