"""Frozen speech encoders with a table of sites: Whisper, w2v-BERT (the USM-like Conformer), AST."""
