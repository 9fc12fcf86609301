"""Scripts that set the project up; a package, since others bring one of the same name."""
