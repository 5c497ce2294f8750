"""From facts to figures. Nothing here opens a file."""
