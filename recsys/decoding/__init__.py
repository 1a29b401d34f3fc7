"""Search for the likeliest semantic IDs of a catalogue, by beam or exactly."""
