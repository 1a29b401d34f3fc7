"""What of a score could be an artefact of the data or of the split, and not a merit of a method."""
