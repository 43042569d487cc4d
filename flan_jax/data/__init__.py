"""From records to batches: sources, SeqIO tasks, the token store, packing and the stream."""
