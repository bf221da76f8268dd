"""Published weights of other libraries: declarative conversion, both ways."""
