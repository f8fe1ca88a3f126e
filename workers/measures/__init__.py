"""Measures of studies: what is computed of a benchmark besides routers' areas. One file each."""
