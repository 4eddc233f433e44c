"""Images from a data set to normalised batches; imports neither paddle nor the manifest's parser.

``splits.split`` opens the sources, ``transforms`` shapes one image, ``loader.Loader`` makes
batches, ``packed`` writes and opens the tutorial's binary format.
"""
