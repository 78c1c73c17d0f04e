"""Where policies stand: files, data, bundles and their signatures, read whole."""
