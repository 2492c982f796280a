// The part's first file.
