"""The page of a job: one HTML file that shows what came of it, file by file, without a network."""
