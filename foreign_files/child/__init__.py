"""What runs in the child process: `program`, with one reader for each kind of file."""
