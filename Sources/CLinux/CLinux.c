// The target is its headers; the package manager wants one source file.
