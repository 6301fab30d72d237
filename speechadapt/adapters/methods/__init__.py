"""The adapter methods, one file each; the folder is their catalogue."""
