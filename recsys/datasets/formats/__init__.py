"""Files of lines, of tab-separated fields and of tables, read in parts and checked."""
