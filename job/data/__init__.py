"""Data sets: from image files to normalized batches.

``splits.split`` opens the data set, ``transforms`` resizes and crops one image, ``loader.Loader``
builds batches, ``packed`` writes and opens the packed binary format.
"""
