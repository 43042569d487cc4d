"""Records to batches: sources, SeqIO tasks, token store, packing and the stream."""
