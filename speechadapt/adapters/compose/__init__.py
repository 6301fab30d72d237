"""The kinds of composition, one file each; the folder is their catalogue."""
