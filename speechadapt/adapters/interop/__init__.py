"""Adapter files of other tools: PEFT, AdapterHub, MMS, CTranslate2."""
