"""Search for the most likely semantic IDs of a catalogue, by beam search or exactly."""
