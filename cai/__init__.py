"""`cai`: Constitutional AI and RLAIF from principle files to trained models.

Importing this package loads no heavy dependency; torch, vllm and trl are imported by the stage that needs them.
"""

__version__ = "0.1.0"
